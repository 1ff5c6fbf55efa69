"""The state machine of a job."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmark_protocol.errors import ContractError
from fleetmark_protocol.jobs import MOVES, JobState, may_move, move

STATES = st.sampled_from(list(JobState))
TERMINAL = {"SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELED", "REJECTED"}


def test_the_terminal_states_are_these():
    assert {state.value for state in JobState if state.terminal} == TERMINAL


@given(STATES, STATES)
def test_a_terminal_state_never_moves(old, new):
    if old.terminal:
        assert not may_move(old, new)


@given(STATES, STATES)
def test_move_does_what_may_move_says(old, new):
    if may_move(old, new):
        assert move(old, new) is new
    else:
        with pytest.raises(ContractError, match=f"from {old} to {new}"):
            move(old, new)


def test_every_state_is_reached_from_queued_and_every_path_can_end():
    reached, todo = set(), {JobState.QUEUED}
    while todo:
        state = todo.pop()
        reached.add(state)
        todo |= MOVES[state] - reached
    assert reached == set(JobState)
    for state in JobState:
        assert state.terminal or any(after.terminal for after in MOVES[state])


@given(st.lists(STATES, max_size=12))
def test_whatever_is_asked_a_job_ends_at_most_once(wishes):
    state, ended = JobState.QUEUED, 0
    for wish in wishes:
        if may_move(state, wish):
            state = move(state, wish)
            ended += state.terminal
    assert ended <= 1


def test_only_a_job_that_has_not_begun_can_be_rejected():
    assert [state for state in JobState if may_move(state, JobState.REJECTED)] == [JobState.QUEUED]


def test_a_job_goes_into_its_next_attempt_without_leaving_in_progress():
    assert may_move(JobState.IN_PROGRESS, JobState.IN_PROGRESS)
    assert not may_move(JobState.IN_PROGRESS, JobState.QUEUED)
