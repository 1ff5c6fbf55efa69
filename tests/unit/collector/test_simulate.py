"""`fleetmark simulate`: how processes share devices and are added up, and what is shown of it."""

import pytest

from fleetmark_collector.cli.simulate_output import progress_line, summary, summary_lines
from fleetmark_collector.cli.simulate_processes import MAXIMA, SUMS, added_up, percentile, shares

ASKED = {"fleet": "simulated", "processes": 1, "rate_hz": 1.0, "seed": 0}


def report(**more):
    return {
        **dict.fromkeys(SUMS, 0),
        **dict.fromkeys(MAXIMA, 0.0),
        "phase": "run",
        "unaccounted": None,
        "delays": {},
        **more,
    }


@pytest.mark.parametrize(("devices", "processes"), [(10, 1), (10, 3), (5000, 7), (4, 4)])
def test_processes_share_all_devices_evenly(devices, processes):
    parts = shares(devices, processes)
    assert [number for first, count in parts for number in range(first, first + count)] == list(
        range(devices)
    )
    counts = [count for _, count in parts]
    assert max(counts) - min(counts) <= 1


def test_counts_are_added_ages_are_not_and_the_slowest_says_how_far_all_are():
    total = added_up(
        [
            report(phase="run", made=3, oldest_s=1.0, late_s=0.5),
            report(phase="prepare", made=4, oldest_s=None, late_s=0.1),
        ]
    )
    assert (total["phase"], total["made"]) == ("prepare", 7)
    assert (total["oldest_s"], total["late_s"]) == (1.0, 0.5)
    assert total["unaccounted"] is None


def test_all_must_have_settled_up_before_there_is_an_account():
    assert added_up([report(unaccounted=1), report(unaccounted=None)])["unaccounted"] is None
    assert added_up([report(unaccounted=1), report(unaccounted=2)])["unaccounted"] == 3
    assert added_up([])["unaccounted"] is None


def test_percentiles_come_out_of_the_classes_of_all_processes():
    total = added_up([report(delays={"1": 50, "2": 49}), report(delays={"0.5": 900, "9": 1})])
    assert percentile(total["delays"], 50) == 0.5
    assert percentile(total["delays"], 99) == 2
    assert percentile(total["delays"], 100) == 9
    assert percentile({}, 50) is None


def test_the_line_tells_what_matters_and_nothing_that_did_not_happen():
    line = progress_line(
        report(devices=1000, connected=998, made=12_345, acked=12_000, backlog=345, oldest_s=1.94),
        1000,
    )
    assert "998 of 1,000 connected" in line
    assert "12,345 made" in line
    assert "345 waiting, oldest 1.9 s" in line
    for word in ("thinned", "trials", "behind", "refused"):
        assert word not in line
    assert "2.5 s behind" in progress_line(report(devices=1, late_s=2.5), 1)
    assert "preparing: 3 of 9" in progress_line(report(phase="prepare", devices=3), 9)


def test_no_percentile_is_beyond_the_longest_delay_there_was():
    total = added_up([report(unaccounted=0, delays={"2.1": 10}, delay_max_s=2.05)])
    found = summary(total, ASKED, None)
    assert found["delay_p50_s"] == found["delay_p99_s"] == found["delay_max_s"] == 2.05


def shown(**more):
    total = added_up([report(**{"unaccounted": 0, "devices": 2, **more})])
    return "\n".join(summary_lines(summary(total, ASKED, None)))


def test_the_account_says_that_nothing_was_lost_or_how_much():
    assert "unaccounted for     0: nothing was lost" in shown(made=10, acked=10)
    lost = shown(made=10, acked=9, unaccounted=1)
    assert "unaccounted for     1" in lost
    assert "nothing was lost" not in lost


def test_what_is_left_in_a_temporary_directory_is_said_to_be_gone():
    assert "left in outboxes    4, gone" in shown(backlog=4)
    total = added_up([report(unaccounted=0, backlog=4)])
    kept = "\n".join(summary_lines(summary(total, ASKED, "/keep")))
    assert "left in outboxes    4\n" in kept


def test_a_fleet_that_nobody_acknowledges_is_told_what_to_look_for():
    assert "does a collector run" in shown(made=10, sent=10, backlog=10)
    assert "does a collector run" not in shown(made=10, sent=10, acked=1, backlog=9)


def test_a_machine_that_is_too_slow_is_told_so():
    assert "7 samples were not made" in shown(skipped=7)
    assert "warning" not in shown()
