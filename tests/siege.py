"""Throws hostile messages at a centre and at an agent, with honest ones among them."""

import json
import random
from dataclasses import dataclass, field

import psutil

from besieged import Agent, Centre, assignment
from collected import EPOCH, OTHER_EPOCH, data, event, job, load, telemetry, trial
from fakes.fake_fleet import make_inventory
from fleetmark_agent.limits import MAX_OPEN_JOBS
from fleetmark_agent.recorder import MAX_ANSWERS
from fleetmark_protocol import codec, topics
from fleetmark_protocol.messages import Ack, Status
from fleetmark_protocol.version import __version__
from mutation import LARGE, Mutator

EVERY = 50
"""One message in so many is an honest one."""

CHUNK = 2000
"""Messages between two looks at everything; the queue of ingest has room for them."""

EVIL = [f"evil-{number}" for number in range(8)]

TOPICS = (
    *("status", "inventory", "data", "data", "data", "data", "data", "data"),
    *("ack", "jobs/c1.good.001", "jobs", "", "+", "data/x", "status/\x1b[2J", "ünknown"),
)


def rss_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def of_devices() -> list[bytes]:
    """Return lawful messages of every kind that devices send."""
    failure = {"code": "BACKEND", "message": "it broke", "retryable": True}
    mine = {"campaign_id": "c1", "job_id": "c1.good.001"}
    ids = {"prompt_ids": (1, 2, 3), "output_ids": (4, 5), "output_sha256": "ab" * 32}
    return [
        codec.encode(Status(online=True, boot_id=EPOCH, agent_version="0.1.0", started_ns=5)),
        codec.encode(Status(online=False, boot_id=EPOCH, agent_version="0.1.0", started_ns=5)),
        codec.encode(make_inventory()),
        data(*((seq, telemetry(seq, power_w=2.5)) for seq in range(1, 6))),
        data((1, telemetry(1, x_new="more", x_other=3.5))),
        data((1, trial(options={"threads": 2}, output_text="Rome", latency_s=0.5, **ids))),
        data((1, trial(**mine, trial_id="c1.good.001.one.0.0")), (2, job(2, "SUCCEEDED", **mine))),
        data((7, load(engine={"threads": 4}, failure=failure)), (8, event(data={"records": 5}))),
        data((9, job(9, "FAILED", failure=failure, trials_recorded=3)), epoch=OTHER_EPOCH),
        data(*((seq, event(seq)) for seq in range(20, 30)), epoch=OTHER_EPOCH),
    ]


@dataclass
class CentreSiege:
    """A centre under fire; an honest device `good` goes on with its work all the while."""

    centre: Centre
    seed: int
    said: int = 0
    recent: list[tuple[str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mutator = Mutator(of_devices(), self.seed)
        self.rng: random.Random = self.mutator.rng
        self.jobs = self.centre.campaign("c1", "good")

    def run(self, messages: int) -> None:
        """Say so many messages and look after each chunk whether all is well."""
        while self.said < messages:
            for _ in range(min(CHUNK, messages - self.said)):
                self.said += 1
                if self.said % EVERY == 0:
                    self._honest(self.said // EVERY)
                else:
                    self.centre.say(*self._hostile())
            self.centre.settle()
            self.centre.tick()

    def _hostile(self) -> tuple[str, bytes, bool]:
        retained = self.rng.random() < 0.2
        if self.rng.random() < 0.01:
            # Or hardly any would be read.
            self.centre.forgive()
        if self.recent and self.rng.random() < 0.05:
            return (*self.rng.choice(self.recent), retained)
        fleet = "lab" if self.rng.random() < 0.9 else f"fleet{self.rng.randrange(10**9)}"
        tail = self.rng.choice(TOPICS)
        topic = f"fleetmark/v1/{fleet}/{self.rng.choice(EVIL)}/{tail}"
        payload = self.mutator.next()
        self.recent.append((topic, payload))
        del self.recent[:-50]
        return topic, payload, retained

    def _honest(self, number: int) -> None:
        self.centre.say(topics.topic("lab", "good", "data"), self._sample(number))

    def _sample(self, number: int) -> bytes:
        return data((number, telemetry(number, cpu_percent=number % 100)))

    def check(self) -> None:
        """See that the honest device's records are there, and that it can go on."""
        count = self.said // EVERY
        assert self.centre.acked("good", EPOCH) == set(range(1, count + 1))
        samples = self.centre.reader.telemetry("lab", "good", 0, 2**63 - 1)
        assert [one.cpu_percent for one in samples] == [
            number % 100 for number in range(1, count + 1)
        ]
        rows = {one.job_id: one.state for one in self.centre.jobs("c1")}
        assert set(rows.values()) == {"QUEUED"}, "hostile words moved an honest device's job"
        self.centre.online("good", 10**18)
        mine = {"campaign_id": "c1", "job_id": self.jobs[0]}
        records = [job(1, "IN_PROGRESS", **mine), job(2, "SUCCEEDED", **mine)]
        self.centre.say("fleetmark/v1/lab/good/data", data(*enumerate(records, count + 1)))
        self.centre.settle()
        self.centre.tick()
        rows = {one.job_id: one.state for one in self.centre.jobs("c1")}
        assert rows[self.jobs[0]] == "SUCCEEDED"
        for line in self.centre.dead_file.read_text().splitlines():
            assert json.loads(line)["reason"].isprintable()


@dataclass
class AgentSiege:
    """An agent whose broker hands it anything at all on any of its topics."""

    agent: Agent
    seed: int

    def __post_init__(self) -> None:
        epoch = self.agent.outbox.epoch
        own = [
            Ack(epoch=epoch, ranges=((1, 3), (5, 5)), collector_version=__version__),
            Ack(epoch=OTHER_EPOCH, ranges=((1, 2**63 - 1),), collector_version=__version__),
            Ack(epoch=epoch, ranges=(), collector_version=__version__, refused="too old"),
        ]
        self.acks = Mutator([codec.encode(one) for one in own], self.seed)
        work = [assignment(f"c1.pi.{number:03d}") for number in range(5)]
        self.work = Mutator([*work, assignment("c1.pi.001", "cancel")], self.seed + 1)
        status = Status(online=False, boot_id=EPOCH, agent_version="1", started_ns=5)
        self.status = Mutator([codec.encode(status)], self.seed + 2)
        self.rng = self.acks.rng
        self.agent.talk.greet()

    def run(self, messages: int) -> None:
        """Say so many messages, while the agent goes on measuring and sending."""
        for number in range(messages):
            if number % 100 == 0:
                self.agent.outbox.append(event(number) if number % 200 else telemetry(number))
                self.agent.time.now_s += 30
                self.agent.talk.turn()
            self._one()

    def _one(self) -> None:
        drawn = self.rng.random()
        if drawn < 0.4:
            self.agent.hear("ack", self.acks.next())
        elif drawn < 0.6:
            job_id = f"c1.pi.{self.rng.randrange(5):03d}"
            self.agent.hear("jobs", self.work.next(), job_id)
        elif drawn < 0.7:
            job_id = f"c{self.rng.randrange(3000)}.pi.001"
            self.agent.hear("jobs", assignment(job_id, self.rng.choice(("run", "cancel"))), job_id)
        elif drawn < 0.75:
            self.agent.hear("jobs", b"", f"c1.pi.{self.rng.randrange(9):03d}")
        elif drawn < 0.9:
            self.agent.hear("status", self.status.next())
        else:
            name = f"fleetmark/v1/lab/{self.rng.choice(('pi', 'pi-2', '+', ''))}"
            tail = self.rng.choice(TOPICS)
            self.agent.talk.received(f"{name}/{tail}", self.work.next())

    def check(self) -> None:
        """See that what the agent holds is bounded, and that honest words still reach it."""
        assert self.agent.joblog.open_count() <= MAX_OPEN_JOBS
        assert self.agent.outbox.backlog().records <= 2 * MAX_ANSWERS
        seq = self.agent.outbox.append(event(10**6))
        self.agent.time.now_s += 1000
        self.agent.talk.turn()
        assert self.agent.outbox.holds(seq)
        everything = Ack(
            epoch=self.agent.outbox.epoch,
            ranges=((1, 2**63 - 1),),
            collector_version=__version__,
        )
        for _ in range(50):
            self.agent.hear("ack", codec.encode(everything))
            self.agent.time.now_s += 1000
            self.agent.talk.turn()
        assert self.agent.outbox.backlog().records == 0
        for large in LARGE:
            self.agent.hear("jobs", large.encode(), "c1.pi.001")
