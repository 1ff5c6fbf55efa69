"""Devices and a broker that only pretend: for tests of who sends what to whom, and in what order.

The store, the state file and the dispatcher in those tests are the real ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fleetmark_collector.campaigns.dispatch import Dispatcher
from fleetmark_collector.campaigns.file import Campaign, load_campaign
from fleetmark_collector.campaigns.patience import PATIENCE, Patience
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.submit import kept_of
from fleetmark_collector.campaigns.tables import CampaignRow, JobRow
from fleetmark_collector.presence import Presence
from fleetmark_collector.sinks.base import Stored
from fleetmark_collector.sinks.sqlite import SqliteReader, SqliteSink
from fleetmark_protocol import codec, topics
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import (
    Assignment,
    BackendInfo,
    Hardware,
    Inventory,
    JobSpec,
    Status,
)
from fleetmark_protocol.records import Failure, JobRecord, Record, TrialRecord

S = 10**9
EPOCH = "00000000-0000-4000-8000-00000000000a"
START_NS = 1_800_000_000 * S

CAMPAIGN = """\
version: 1
name: sizes
targets: {all: true}
matrix:
  backend: [xllamacpp]
  model: {name: tiny, ref: "path:tiny.gguf"}
  quantization: [Q8_0, Q4_0]
  options: {threads: [1, 2]}
workloads:
  - {name: one, kind: single, prompt: hello, warmup: 1, repetitions: 2}
"""


def make_campaign(directory: Path, text: str = CAMPAIGN) -> Campaign:
    file = directory / "campaign.yaml"
    file.write_text(text)
    return load_campaign(file)


def make_inventory(**fields) -> Inventory:
    known = {
        "boot_id": EPOCH,
        "time_ns": START_NS,
        "agent_version": "1",
        "python_version": "3.11",
        "hardware": Hardware(arch="aarch64", os="Linux", kernel="6", hostname="pi"),
        "backends": (BackendInfo(name="xllamacpp", available=True, version="1"),),
        "allowed_backends": ("*",),
        "allowed_sources": ("path:", "pypi://"),
    }
    return Inventory(**{**known, **fields})


@dataclass
class FakeDevice:
    """Runs what it is told, one job at a time, a step at each `work`, and reports in order.

    `ends` names how jobs end (by the end of their id); others succeed.
    """

    device: str
    fleet: str = "lab"
    online: bool = True
    inventory: Inventory | None = field(default_factory=make_inventory)
    status: Status | None = None
    last_seen_ns: int | None = None
    ends: dict[str, JobState] = field(default_factory=dict)
    trials: int = 2
    known: dict[str, JobState] = field(default_factory=dict)
    specs: dict[str, JobSpec] = field(default_factory=dict)
    outbox: list[Record] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)

    def assign(self, assignment: Assignment) -> None:
        job_id = assignment.job.job_id
        self.specs[job_id] = assignment.job
        state = self.known.setdefault(job_id, JobState.QUEUED)
        if assignment.desired == "cancel" and not state.terminal:
            self._end(job_id, JobState.CANCELED)

    def withdraw(self, job_id: str) -> None:
        if not self.known.get(job_id, JobState.CANCELED).terminal:
            self._end(job_id, JobState.CANCELED)

    def work(self) -> None:
        job_id = next((job for job, state in self.known.items() if not state.terminal), None)
        if job_id is None:
            return
        end = next((e for job, e in self.ends.items() if job_id.endswith(job)), JobState.SUCCEEDED)
        done = self.done.get(job_id, 0)
        if end is JobState.REJECTED:
            self._end(job_id, end)
        elif self.known[job_id] is JobState.QUEUED:
            self.known[job_id] = JobState.IN_PROGRESS
            self.started.append(job_id)
            self.outbox.append(self._job(job_id, JobState.IN_PROGRESS))
        elif done < self.trials:
            self.outbox.append(trial_record(self.specs[job_id], done))
            self.done[job_id] = done + 1
        else:
            self._end(job_id, end)

    def _end(self, job_id: str, state: JobState) -> None:
        self.known[job_id] = state
        self.outbox.append(self._job(job_id, state))

    def _job(self, job_id: str, state: JobState) -> JobRecord:
        failed = state.terminal and state is not JobState.SUCCEEDED
        return JobRecord(
            time_ns=START_NS + len(self.outbox),
            campaign_id=self.specs[job_id].campaign_id,
            job_id=job_id,
            attempt=int(job_id in self.started),
            state=state,
            trials_recorded=self.done.get(job_id, 0),
            failure=Failure(code="BACKEND", message="as told") if failed else None,
        )

    def record(self, seq: int) -> Stored[Record]:
        return Stored(self.fleet, self.device, EPOCH, seq, self.outbox[seq - 1])


def trial_record(spec: JobSpec, index: int) -> TrialRecord:
    return TrialRecord(
        time_ns=START_NS + index,
        campaign_id=spec.campaign_id,
        job_id=spec.job_id,
        attempt=1,
        backend=spec.backend,
        model=spec.model.name,
        trial_id=f"{spec.job_id}.one.{index}.0",
        trial_index=index,
        workload="one",
        workload_kind="single",
        repetition=index,
        prompt_index=0,
        prompt_sha256="ab" * 32,
        output_tokens_requested=8,
        verdict="VALID",
    )


class FakeWorld:
    """A broker's retained topics, devices, a clock that is set by hand; and the real centre."""

    def __init__(
        self, directory: Path, *devices: FakeDevice, patience: Patience = PATIENCE
    ) -> None:
        self.directory = directory
        self.patience = patience
        self.now_ns = START_NS
        self.devices = list(devices)
        self.retained: dict[str, bytes] = {}
        self.sent: list[tuple[str, str]] = []
        self.presence = Presence(lambda: self.now_ns / S)
        self.connected = True
        self.before_clock: Callable[[], None] = lambda: None
        self.state_file = directory / "state.db"
        self.sink = SqliteSink(directory / "store.db")
        self.reader = SqliteReader(directory / "store.db")
        self.dispatcher = self.start()

    def clock(self) -> int:
        self.before_clock()
        return self.now_ns

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        assert retain
        if not self.connected:
            return
        said = codec.decode(Assignment, payload).desired if payload else "nothing"
        self.sent.append((topics.parse(topic).job_id or "", said))
        self.retained.pop(topic, None)
        if payload:
            self.retained[topic] = payload
        for device in self.devices:
            if device.online:
                self._deliver(device, topic, payload)

    def _deliver(self, device: FakeDevice, topic: str, payload: bytes) -> None:
        to = topics.parse(topic)
        if (to.fleet, to.device) != (device.fleet, device.device):
            return
        if payload:
            device.assign(codec.decode(Assignment, payload))
        else:
            device.withdraw(to.job_id or "")

    def come_online(self, device: FakeDevice) -> None:
        device.online = True
        for topic, payload in self.retained.items():
            self._deliver(device, topic, payload)

    def start(self) -> Dispatcher:
        self.dispatcher = Dispatcher(
            self.state_file,
            self.reader,
            self,
            self.publish,
            self.clock,
            self.patience,
            centre="here",
            heard=self.presence.heard,
        )
        self.connect()
        return self.dispatcher

    def connect(self, *, retained: bool = True) -> None:
        """Connect to a broker that retains what every device said last, or to one that does not."""
        self.presence.connected()
        self.dispatcher.on_connect()
        for device in self.devices if retained else ():
            self.presence.note((device.fleet, device.device), retained=True)

    def submit(self, campaign_id: str = "c1", text: str = CAMPAIGN) -> list[str]:
        campaign = make_campaign(self.directory, text)
        plan = make_plan(campaign, campaign_id, self.devices)
        store = self.store()
        store.create(campaign, plan, kept=kept_of(campaign))
        store.close()
        return [job.spec.job_id for job in plan.jobs]

    def store(self) -> CampaignStore:
        return CampaignStore(self.state_file, lambda: self.now_ns)

    def states(self, campaign_id: str = "c1") -> dict[str, JobState]:
        store = self.store()
        try:
            return {job.job_id: job.state for job in store.jobs(campaign_id)}
        finally:
            store.close()

    def campaign(self, campaign_id: str = "c1") -> CampaignRow:
        store = self.store()
        try:
            return store.campaign(campaign_id)
        finally:
            store.close()

    def jobs(self, campaign_id: str = "c1") -> dict[str, JobRow]:
        """The jobs by what follows the campaign in their ids."""
        store = self.store()
        try:
            rows = store.jobs(campaign_id)
            return {job.job_id.removeprefix(f"{campaign_id}."): job for job in rows}
        finally:
            store.close()

    def deliver_all(self) -> None:
        for device in self.devices:
            self.sink.write([device.record(seq + 1) for seq in range(len(device.outbox))])

    def step(self, seconds: float = 1) -> None:
        """Let a second pass in which everything works."""
        self.now_ns += int(seconds * S)
        for device in self.devices:
            if device.online:
                device.last_seen_ns = self.now_ns
                device.work()
        self.deliver_all()
        self.dispatcher.tick()

    def close(self) -> None:
        self.dispatcher.close()
        self.reader.close()
        self.sink.close()

    # The registry's role; last, because it hides the builtin from what follows.
    def list(self) -> list[FakeDevice]:
        return self.devices
