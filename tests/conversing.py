"""A device's conversation for tests: the clock, the connection and the centre are the test's."""

import json
import random
import uuid

from fakes.fake_time import FakeTime
from fleetmark_agent.assignments import RefusedJob, read
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.conversation import Conversation
from fleetmark_agent.database import Database
from fleetmark_agent.joblog import JobLog
from fleetmark_agent.outbox import Outbox
from fleetmark_protocol import codec, topics
from fleetmark_protocol.errors import OutboxFull
from fleetmark_protocol.messages import Ack, JobSpec, Status
from fleetmark_protocol.records import RECORD, EventRecord, TelemetryRecord
from fleetmark_protocol.version import __version__

BOOT = str(uuid.uuid4())


class Device:
    """A conversation whose connection is a list."""

    def __init__(self, directory, epoch=None, lists_jobs=False):
        self.time = FakeTime()
        self.settings = AgentSettings(device_id="d1", fleet="f", state_dir=directory)
        database = Database(self.settings.outbox_file)
        if epoch is not None:
            with database.transaction() as connection:
                connection.execute("INSERT INTO meta VALUES ('epoch', ?)", (epoch,))
        self.outbox = Outbox(database, 10**8)
        self.joblog = JobLog(database)
        self._lists_jobs = lists_jobs
        self.said = []
        self.wakes = 0
        self.watched = []
        self.taken = []
        self.room = True
        self.talk = Conversation(
            self.settings,
            self.outbox,
            Status(online=True, boot_id=BOOT, agent_version="1", started_ns=1),
            publish=self._publish,
            wake=self._wake,
            on_assignment=self._assigned,
            on_refused=lambda one: self._take(one.job.job_id, f"refused: {one.problem.message}"),
            on_withdrawn=lambda job_id: self._take(job_id, "withdrawn"),
            rng=random.Random(1),
            watcher=self,
            jobs=self.joblog.known if lists_jobs else None,
            clock_s=self.time,
            wall_ns=lambda: 7,
        )

    def _publish(self, topic, payload, *, retain):
        self.said.append((topics.parse(topic).channel, payload, retain))

    def _assigned(self, one):
        self._take(one.job.job_id, one.desired)
        if self._lists_jobs:
            self.joblog.accept(one.job)

    def _take(self, job_id, wish):
        if not self.room:
            raise OutboxFull("the disk is full")
        self.taken.append((job_id, wish))

    def _assignment(self, number, desired="run", version=__version__, **more):
        job = {
            "job_id": f"c.d1.{number:03d}",
            "campaign_id": "c",
            "backend": "xllamacpp",
            "model": {"name": "m", "ref": "path:m.gguf"},
            "workloads": [{"name": "w", "kind": "single", "prompts": ["p"]}],
            **more,
        }
        return {"desired": desired, "job": job, "collector_version": version}

    def wish(self, number, desired=None, **more):
        """Have the centre assign a job, or withdraw it."""
        said = self._assignment(number, desired, **more)
        payload = b"" if desired is None else json.dumps(said).encode()
        self.talk.received(topics.topic("f", "d1", "jobs", said["job"]["job_id"]), payload)

    def refused(self, number, **more):
        """Return an assignment as it is refused."""
        found = read(json.dumps(self._assignment(number, **more)).encode())
        assert isinstance(found, RefusedJob)
        return found

    def spec(self, number):
        """Return a job."""
        return JobSpec.model_validate(self._assignment(number)["job"])

    def records(self):
        """Records in the outbox."""
        return [RECORD.validate_json(raw) for _, raw in self.outbox.batch(1000, 10**9)]

    def _wake(self):
        self.wakes += 1

    def sent(self, seqs):
        self.watched.append(("sent", list(seqs)))

    def acked(self, ranges, freed):
        self.watched.append(("acked", freed))

    def sample(self):
        return self.outbox.append(TelemetryRecord(time_ns=1, boot_id=BOOT))

    def event(self):
        return self.outbox.append(EventRecord(time_ns=1, severity="info", code="c", message="m"))

    def batches(self):
        """Sequence numbers of what was sent since the last time this was asked."""
        sent = [payload for channel, payload, _ in self.said if channel == "data"]
        self.said = [one for one in self.said if one[0] != "data"]
        return [[item.seq for item in codec.decode_batch(one).records] for one in sent]

    def topic(self, channel):
        return topics.topic("f", "d1", channel)

    def hear(self, channel, message):
        self.talk.received(self.topic(channel), codec.encode(message))

    def ack(self, *seqs):
        ranges = codec.to_ranges(seqs)
        self.hear(
            "ack",
            Ack(epoch=self.outbox.epoch, ranges=ranges, collector_version=__version__),
        )

    def refuse(self, reason="too old"):
        """Have the centre refuse what was sent."""
        said = {"ranges": (), "collector_version": __version__, "refused": reason}
        self.hear("ack", Ack(epoch=self.outbox.epoch, **said))
