"""Whose turn it is to be told of, and when a summary is worth its price."""

from dataclasses import replace

import pytest

from fleetmark_collector.campaigns.tables import CampaignRow, CampaignState
from fleetmark_collector.monitoring.rounds import (
    MAX_CAMPAIGNS,
    NS,
    SETTLED_S,
    SHARE,
    SUMMARY_S,
    Rounds,
)


def campaign(name="c", created_ns=0, finished_ns=None):
    return CampaignRow(
        name, "n", "", "f", 60.0, created_ns, CampaignState.RUNNING, None, None, finished_ns
    )


@pytest.fixture
def rounds():
    return Rounds()


def names(rows):
    return [row.campaign_id for row in rows]


def test_the_newest_come_first_and_nobody_is_left_out(rounds):
    many = [campaign(f"c{number}", number) for number in range(MAX_CAMPAIGNS + 3)]
    first = names(rounds.next(many, 1.0))
    assert first == names(many[:2:-1])
    second = names(rounds.next(many, 2.0))
    assert second[:3] == ["c2", "c1", "c0"]
    assert len(second) == MAX_CAMPAIGNS


def test_a_summary_is_due_when_something_came_and_the_last_one_is_some_time_ago(rounds):
    row = campaign()
    assert rounds.summary_due(row, {"job": 1}, 100.0)
    rounds.summed_up(row, {"job": 1}, 100.0, 100.5)
    assert not rounds.summary_due(row, {"job": 1}, 10_000.0)
    assert not rounds.summary_due(row, {"job": 2}, 100.5 + SUMMARY_S - 0.1)
    assert rounds.summary_due(row, {"job": 2}, 100.5 + SUMMARY_S)


def test_a_summary_that_took_long_is_made_less_often(rounds):
    row = campaign()
    rounds.summed_up(row, 1, 100.0, 110.0)
    assert not rounds.summary_due(row, 2, 110.0 + 10 * SHARE - 1)
    assert rounds.summary_due(row, 2, 110.0 + 10 * SHARE)


def test_a_campaign_that_runs_is_never_dropped(rounds):
    rounds.summed_up(campaign(), 1, 0.0, 0.0)
    assert not rounds.settle(campaign(), 1, 10**18)


def test_a_campaign_that_has_ended_is_dropped_once_all_of_it_is_told(rounds):
    row = campaign(finished_ns=1000 * NS)
    late_ns = int((1000 + SETTLED_S) * NS)
    assert not rounds.settle(row, 1, late_ns), "its cells were never told"
    rounds.summed_up(row, 1, 0.0, 0.0)
    assert not rounds.settle(row, 2, late_ns), "a trial came late"
    assert not rounds.settle(row, 1, late_ns - 1), "one may still come"
    assert names(rounds.next([row], 1.0)) == ["c"]
    assert rounds.settle(row, 1, late_ns)
    assert rounds.next([row], 2.0) == []


def test_campaigns_that_are_no_more_are_forgotten(rounds):
    done = campaign("done", finished_ns=1)
    rounds.next([campaign("runs"), campaign("gone"), done], 1.0)
    rounds.summed_up(done, 1, 0.0, 0.0)
    rounds.settle(done, 1, 10**18)
    assert rounds.forget_all_but({"runs"}) == {"gone", "done"}
    assert rounds.forget_all_but({"runs"}) == set()
    assert names(rounds.next([replace(done, finished_ns=None)], 2.0)) == ["done"]
