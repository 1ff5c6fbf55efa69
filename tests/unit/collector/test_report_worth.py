"""Cost and EQ: what a request costs, which cell is the best value, and what failed is no number."""

import pytest

from fakes.fake_campaign import CAMPAIGN, FakeJob, failure, store
from fakes.fake_workloads import crowd, priced
from fleetmark_collector.report.build import build_report
from fleetmark_collector.report.sheets import worth_sheet
from fleetmark_collector.report.worth import Standing
from fleetmark_protocol.jobs import JobState


def build(tmp_path, *jobs):
    reader = store(tmp_path, *jobs)
    try:
        return build_report(reader, CAMPAIGN)
    finally:
        reader.close()


def cells(count=2, **more):
    """Each half as fast as the one before, on a machine that costs twice as much."""
    return [
        priced(FakeJob(device=f"ec2-{n}", tpot_s=0.01 * 2**n), 0.1 * 2**n, **more)
        for n in range(count)
    ]


def standings(report):
    (worth,) = report.worths
    return {value.cell.cell.config.device: value.standing for value in worth.values}


def table(report):
    sheet = worth_sheet(report.worths[0])
    titles = [title for title, _ in sheet.columns]
    return {
        name: dict(zip(titles, (one.value for one in entries), strict=True))
        for name, entries in sheet.rows
    }


def test_a_report_without_prices_has_no_word_of_cost(tmp_path):
    report = build(tmp_path, FakeJob().usual())
    assert report.worths == ()
    assert [one for one in report.findings if "value" in one.text] == []


def test_the_cell_with_the_highest_eq_is_the_best_value_and_the_others_say_by_how_much(tmp_path):
    report = build(tmp_path, *cells())
    assert standings(report) == {"ec2-0": Standing.BEST, "ec2-1": Standing.BEHIND}
    best, other = report.worths[0].values
    assert best.gain is None
    # Twice as slow and twice the price: an eighth of the EQ.
    assert (other.gain.low, other.gain.ratio) == pytest.approx((8, 8))
    assert (best.usd_per_hour, other.usd_per_hour) == (0.1, 0.2)


def test_the_table_of_cost_is_per_thousand_requests_and_marks_the_best(tmp_path):
    rows = table(build(tmp_path, *cells()))
    assert list(rows["ec2-0"]) == ["Price", "1000 requests", "EQ", "EQ per token", "Value"]
    # 0.1 USD an hour, 1 s a request.
    assert float(rows["ec2-0"]["1000 requests"]) == pytest.approx(0.1 / 3.6, rel=0.03)
    assert rows["ec2-0"]["Value"] == "best"
    assert rows["ec2-1"]["Value"] == "best is 8.00x"


def test_two_cells_that_do_not_differ_are_level_and_neither_is_the_best(tmp_path):
    report = build(
        tmp_path, priced(FakeJob(device="a"), 0.1), priced(FakeJob(device="b", seed=3), 0.1)
    )
    assert set(standings(report).values()) == {Standing.LEVEL}
    (text,) = [f.text for f in report.findings if "Best value" in f.text]
    assert "no difference shown" in text


def test_too_few_repetitions_make_nobody_the_best(tmp_path):
    report = build(tmp_path, *cells(repetitions=3))
    assert standings(report) == {"ec2-0": Standing.HIGHEST, "ec2-1": Standing.UNCERTAIN}


def test_a_cell_that_nothing_can_be_compared_with_is_not_called_the_best(tmp_path):
    odd = priced(FakeJob(device="odd"), 0.1, output_tokens=5)
    report = build(tmp_path, *cells(), odd)
    assert standings(report)["odd"] is Standing.ALONE


def test_a_failed_cell_is_a_typed_failure_and_no_number(tmp_path):
    bad = FakeJob(device="small", number=5)
    bad.trial("single", failure=failure("OUT_OF_MEMORY"), verdict="INVALID", usd_per_hour=0.05)
    bad.job(JobState.FAILED, failure=failure("OUT_OF_MEMORY"))
    report = build(tmp_path, *cells(), bad)
    sheet = worth_sheet(report.worths[0])
    row = table(report)["small"]
    assert (row["Price"], row["EQ"], row["1000 requests"]) == ("0.05", "-", "-")
    assert row["Value"] == "failed"
    assert "OUT_OF_MEMORY" in " ".join(sheet.remarks)
    assert standings(report)["ec2-0"] is Standing.BEST


def test_a_machine_that_costs_nothing_has_no_eq_and_is_called_free(tmp_path):
    report = build(tmp_path, *cells(), priced(FakeJob(device="mine"), 0.0))
    row = table(report)["mine"]
    assert (row["Price"], row["1000 requests"], row["EQ"], row["Value"]) == (
        *("0", "0.000000", "-"),
        "free",
    )
    assert standings(report)["mine"] is None


def test_the_winner_by_eq_is_told_on_each_device_and_over_all(tmp_path):
    one = priced(FakeJob(device="a", number=1, quantization="Q4_0", tpot_s=0.01), 0.1)
    other = priced(FakeJob(device="a", number=2, quantization="Q8_0", tpot_s=0.02), 0.1)
    third = priced(FakeJob(device="b", number=3, quantization="Q4_0", tpot_s=0.04), 0.1)
    report = build(tmp_path, one, other, third)
    found = {f.device: f.text for f in report.findings if "Best value" in f.text}
    assert found["a"].startswith("Best value for money: a/Q4_0 (EQ 35,9")
    assert "Behind: a/Q8_0 by 4.00x [4.00-4.00]" in found["a"]
    assert "b/Q4_0 by 16.00x" in found[None]


def test_the_cost_of_clients_is_their_share_of_the_round_as_the_trials_have_it(tmp_path):
    job = crowd(FakeJob(), 4, 60.0, usd_per_hour=0.36, cost_usd=0.0005, eq=5.0)
    (value,) = build(tmp_path, job).worths[0].values
    assert value.cell.figures["cost_usd"].sessions == 8
    assert value.cell.figures["cost_usd"].count == 32
