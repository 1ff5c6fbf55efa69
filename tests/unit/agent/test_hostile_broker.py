"""What a broker or a collector gone wrong can do to an agent by words: nothing that grows."""

import pytest

from besieged import Agent, assignment
from collected import event
from fleetmark_agent.limits import MAX_OPEN_JOBS
from fleetmark_agent.recorder import MAX_ANSWERS
from fleetmark_protocol import codec
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import Ack
from fleetmark_protocol.version import __version__


@pytest.fixture
def agent(tmp_path):
    made = Agent(tmp_path)
    yield made
    made.close()


def end(agent: Agent, job_id: str) -> None:
    """Have a job end as the runner would have it."""
    entry = agent.joblog.get(job_id)
    recorder = agent.runner._recorder
    recorder.end(recorder.final(entry.spec, JobState.REJECTED, None, 0))


def ack_all(agent: Agent) -> None:
    agent.outbox.batch(10**6, 10**9)
    agent.hear(
        "ack",
        codec.encode(
            Ack(
                epoch=agent.outbox.epoch,
                ranges=((1, 2**63 - 1),),
                collector_version=__version__,
            )
        ),
    )


def test_an_assignment_that_is_played_again_is_answered_once_until_the_answer_is_confirmed(agent):
    agent.hear("jobs", assignment("c1.pi.001"), "c1.pi.001")
    end(agent, "c1.pi.001")
    ack_all(agent)
    for _ in range(50):
        agent.hear("jobs", assignment("c1.pi.001"), "c1.pi.001")
    assert agent.outbox.backlog().records == 1
    ack_all(agent)
    assert agent.outbox.backlog().records == 0
    agent.hear("jobs", assignment("c1.pi.001"), "c1.pi.001")
    assert agent.outbox.backlog().records == 1, "who asks later has not heard"


def test_thousands_of_jobs_neither_fill_the_disk_nor_the_inventory(agent):
    for number in range(MAX_ANSWERS + MAX_OPEN_JOBS + 200):
        job_id = f"c{number}.pi.001"
        agent.hear("jobs", assignment(job_id), job_id)
    assert agent.joblog.open_count() == MAX_OPEN_JOBS
    assert agent.outbox.backlog().records == MAX_ANSWERS
    ack_all(agent)
    agent.hear("jobs", assignment("c0.pi.002"), "c0.pi.002")
    assert agent.outbox.backlog().records == 1, "and when they are taken, there is room again"


def test_acks_for_what_was_never_sent_free_nothing(agent):
    agent.talk.greet()
    agent.outbox.append(event())
    everything = Ack(
        epoch=agent.outbox.epoch, ranges=((1, 2**63 - 1),), collector_version=__version__
    )
    for _ in range(3):
        agent.hear("ack", codec.encode(everything))
    assert agent.outbox.backlog().records == 1
    agent.talk.turn()
    agent.hear("ack", codec.encode(everything))
    assert agent.outbox.backlog().records == 0


@pytest.mark.parametrize(
    "ranges",
    ["[[0,5]]", "[[-1,5]]", "[[5,1]]", "[[1,9223372036854775808]]", "[[1,2,3]]", "[[1.5,2]]", "{}"],
)
def test_ranges_that_are_none_free_nothing(agent, ranges):
    agent.talk.greet()
    agent.outbox.append(event())
    agent.talk.turn()
    said = (
        f'{{"epoch":"{agent.outbox.epoch}","ranges":{ranges},"collector_version":"{__version__}"}}'
    )
    agent.hear("ack", said.encode())
    assert agent.outbox.backlog().records == 1


def test_overlapping_ranges_count_what_they_free_once(agent):
    agent.talk.greet()
    for number in range(5):
        agent.outbox.append(event(number))
    agent.talk.turn()
    (first, *_, last) = [seq for seq, _ in agent.outbox.batch(10, 10**6)]
    spans = ((first, last), (first + 1, last), (first, first)) * 100
    said = Ack(epoch=agent.outbox.epoch, ranges=spans, collector_version=__version__)
    agent.hear("ack", codec.encode(said))
    backlog = agent.outbox.backlog()
    assert (backlog.records, backlog.bytes) == (0, 0)
