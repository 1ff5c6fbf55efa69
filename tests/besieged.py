"""A centre and a device, made of the real parts, to throw messages at; no broker in between."""

import random
from pathlib import Path

from collected import BOOT
from fakes.fake_fleet import CAMPAIGN, S, make_campaign, make_inventory
from fakes.fake_time import FakeTime
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.conversation import Conversation
from fleetmark_agent.database import Database
from fleetmark_agent.engine import Tools
from fleetmark_agent.joblog import JobLog
from fleetmark_agent.models.store import ModelStore
from fleetmark_agent.outbox import Outbox
from fleetmark_agent.recorder import Recorder
from fleetmark_agent.runner import Runner
from fleetmark_collector.campaigns.dispatch import Dispatcher
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.submit import kept_of
from fleetmark_collector.campaigns.tables import JobRow
from fleetmark_collector.config import IngestSettings
from fleetmark_collector.culprits import PAUSE_S, Culprits
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.ingest import Ingest
from fleetmark_collector.reception import Reception
from fleetmark_collector.sinks.sqlite import SqliteReader, SqliteSink
from fleetmark_protocol import codec, topics
from fleetmark_protocol.errors import FleetmarkError
from fleetmark_protocol.messages import Ack, Assignment, Status
from fleetmark_protocol.version import __version__
from servers import wait_for

LETTERS_BYTES = 200_000
"""When a file of dead letters is full."""


class Centre:
    """What `fleetmark collect` makes of messages: the same parts, wired alike."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.time = FakeTime()
        self.acks: list[tuple[str, Ack]] = []
        self.dead_file = directory / "dead.jsonl"
        letters = DeadLetters(self.dead_file, LETTERS_BYTES)
        self.culprits = Culprits(self.time)
        self.sink = SqliteSink(directory / "store.db")
        self.reader = SqliteReader(directory / "store.db")
        self.state_file = directory / "state.db"
        self.registry = DeviceRegistry(self.state_file)
        self.reception = Reception(self.registry, letters, self.culprits, self._ask_again)
        self.asked_again = 0
        self.ingest = Ingest(
            IngestSettings(batch_age_s=0.01),
            self.sink,
            letters,
            self._acked,
            self.registry.seen,
            culprits=self.culprits,
        )
        self.dispatcher = Dispatcher(
            self.state_file, self.reader, self.registry, lambda *_: None, centre="here"
        )
        self.ingest.start()

    def _acked(self, topic: str, payload: bytes, retain: bool) -> None:
        self.acks.append((topic, codec.decode(Ack, payload)))

    def _ask_again(self) -> None:
        self.asked_again += 1

    def look_after(self) -> None:
        """Have the reception do what it does about once a second."""
        self.reception.look_after()

    def say(self, topic: str, payload: bytes, retained: bool = False) -> None:
        """Deliver a message as the bus does, by its topic."""
        if topic.endswith("/data"):
            self.ingest.receive(topic, payload, retained)
        else:
            self.reception.receive(topic, payload, retained)

    def settle(self, limit_s: float = 120) -> None:
        """Wait until everything said is written; the limit is for a hang."""
        wait_for(
            lambda: self.ingest.failure is not None or not self._busy(),
            limit_s,
            "all of it written",
        )
        assert self.ingest.failure is None, self.ingest.failure

    def _busy(self) -> bool:
        stats = self.ingest.stats()
        return bool(stats.queue_messages or stats.lag_s)

    def tick(self) -> None:
        """Do what the collector's main thread does about once a second."""
        self.dispatcher.tick()
        self.registry.flush()

    def forgive(self) -> None:
        """Let so much time pass that nobody is ignored any more."""
        self.time.now_s += PAUSE_S + 1

    def campaign(self, campaign_id: str, *devices: str) -> list[str]:
        """Bring devices online and give each jobs; return the ids of the jobs."""
        for device in devices:
            self.online(device)
        self.registry.flush()
        campaign = make_campaign(self.directory, CAMPAIGN)
        plan = make_plan(campaign, campaign_id, self.registry.list())
        store = CampaignStore(self.state_file)
        store.create(campaign, plan, kept=kept_of(campaign))
        store.close()
        self.tick()
        return [job.spec.job_id for job in plan.jobs]

    def jobs(self, campaign_id: str) -> list[JobRow]:
        """Return how the centre sees a campaign's jobs."""
        store = CampaignStore(self.state_file)
        try:
            return store.jobs(campaign_id)
        finally:
            store.close()

    def online(self, device: str, started_ns: int = S) -> None:
        """Have a device say who it is and what it has."""
        status = Status(online=True, boot_id=BOOT, agent_version=__version__, started_ns=started_ns)
        self.say(topics.topic("lab", device, "status"), codec.encode(status))
        inventory = codec.encode(make_inventory(agent_version=__version__))
        self.say(topics.topic("lab", device, "inventory"), inventory)

    def acked(self, device: str, epoch: str) -> set[int]:
        """Return the records of an outbox that were confirmed."""
        name = topics.topic("lab", device, "ack")
        ranges = [
            one
            for topic, ack in self.acks
            if (topic, ack.epoch) == (name, epoch)
            for one in ack.ranges
        ]
        return {seq for first, last in ranges for seq in range(first, min(last, first + 10**6) + 1)}

    def letters_bytes(self) -> int:
        """Return the size of all dead letters."""
        return sum(file.stat().st_size for file in self.directory.glob("dead.jsonl*"))

    def close(self) -> None:
        self.ingest.stop()
        self.dispatcher.close()
        self.registry.close()
        self.reader.close()
        self.sink.close()


class Agent:
    """What `fleetmark-agent run` makes of messages; its runner takes jobs and begins none."""

    def __init__(self, directory: Path) -> None:
        self.time = FakeTime()
        self.settings = AgentSettings(device_id="pi", fleet="lab", state_dir=directory)
        self.database = Database(self.settings.outbox_file)
        self.outbox = Outbox(self.database, 10**8)
        self.joblog = JobLog(self.database)
        self.said: list[tuple[str, bytes]] = []
        recorder = Recorder(self.database, self.outbox, self.joblog, lambda: True)
        tools = Tools(None, None, directory, None, None)  # type: ignore[arg-type]
        self.runner = Runner(
            self.settings,
            tools,
            recorder,
            ModelStore.from_settings(self.settings),
            create=_no_backend,
            on_change=lambda: None,
        )
        self.talk = Conversation(
            self.settings,
            self.outbox,
            Status(online=True, boot_id=BOOT, agent_version=__version__, started_ns=1),
            publish=self._publish,
            wake=lambda: None,
            on_assignment=self.runner.assign,
            on_refused=self.runner.refuse,
            on_withdrawn=self.runner.withdraw,
            rng=random.Random(1),
            clock_s=self.time,
        )

    def _publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        self.said.append((topic, payload))
        del self.said[:-100]

    def hear(self, channel: str, payload: bytes, job_id: str | None = None) -> None:
        """Deliver a message on one of the agent's own topics."""
        self.talk.received(topics.topic("lab", "pi", channel, job_id), payload)

    def close(self) -> None:
        self.database.close()


def _no_backend(name: str) -> None:
    raise FleetmarkError(f"no backend {name!r} here")


def assignment(job_id: str, desired: str = "run") -> bytes:
    """Return a lawful assignment."""
    return codec.encode(
        Assignment.model_validate(
            {
                "desired": desired,
                "collector_version": __version__,
                "job": {
                    "job_id": job_id,
                    "campaign_id": job_id.split(".")[0],
                    "backend": "xllamacpp",
                    "model": {"name": "m", "ref": "path:m.gguf"},
                    "workloads": [{"name": "w", "kind": "single", "prompts": ["p"]}],
                },
            }
        )
    )
