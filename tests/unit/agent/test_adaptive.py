"""How many repetitions are enough: the interval of a median, and the rules that end."""

import random
from itertools import pairwise
from statistics import median

import pytest

from fleetmark_agent.adaptive import Ending, ending, half_width_percent, median_interval
from fleetmark_protocol.workloads import Workload


def workload(repetitions=20, **adaptive) -> Workload:
    return Workload.model_validate(
        {
            "name": "w",
            "kind": "single",
            "prompts": ["p"],
            "repetitions": repetitions,
            "adaptive": {"half_width_percent": 5} | adaptive,
        }
    )


@pytest.mark.parametrize(
    ("count", "rank"),
    # Ranks of the sign test's 95 % interval, as printed in tables of order statistics.
    [(6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (15, 4), (20, 6), (25, 8), (50, 18), (100, 40)],
)
def test_the_interval_of_a_median_lies_between_the_tables_order_statistics(count, rank):
    values = random.Random(count).sample(range(1000), count)
    ordered = sorted(values)
    assert median_interval(values) == (ordered[rank - 1], ordered[-rank])


def test_fewer_than_six_values_have_no_interval():
    assert median_interval([1.0] * 5) is None
    assert half_width_percent([1.0] * 5) is None
    assert half_width_percent([1.0] * 6) == 0


def test_the_interval_holds_the_true_median_as_often_as_it_says():
    rng = random.Random(1)
    held = 0
    for _ in range(2000):
        low, high = median_interval([rng.expovariate(1) for _ in range(9)])
        held += low <= 0.6931 <= high
    # 96.1 % by the binomial distribution for 9 values.
    assert 0.945 < held / 2000 < 0.975


def test_thousands_of_values_are_no_burden_and_keep_narrowing_the_interval():
    widths = [half_width_percent([float(n) for n in range(1, many)]) for many in (100, 1000, 9999)]
    assert all(later < earlier for earlier, later in pairwise(widths))


def test_the_half_width_is_relative_to_the_median():
    values = [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]
    assert half_width_percent(values) == pytest.approx(100 * 2.5 / median(values))
    assert half_width_percent([0.0] * 8) is None


def test_repetitions_end_once_the_median_is_known_well_enough():
    close, wide = [100.0, 101.0, 102.0, 103.0, 104.0], [60.0, 80.0, 100.0, 120.0, 140.0]
    assert ending(workload(), close, 1.0) is None, "no interval yet"
    assert ending(workload(), [*close, 105.0], 1.0) == Ending(
        "w", 6, "target", pytest.approx(2.44, abs=0.01)
    )
    assert ending(workload(), [*wide, 160.0], 1.0) is None


def test_no_repetition_begins_once_the_time_for_them_is_spent_but_the_least_are_made():
    rules = workload(min=3, budget_s=10)
    assert ending(rules, [8.0], 8.0) is None
    assert ending(rules, [8.0, 8.0], 16.0) is None, "two of at least three"
    assert ending(rules, [8.0] * 3, 24.0) == Ending("w", 3, "budget", None)
    assert ending(rules, [1.0, 2.0, 3.0], 9.99) is None
    assert ending(rules, [1.0, 2.0, 3.0], 10.0).reason == "budget"


def test_as_many_as_the_campaign_allows_end_it_even_if_the_median_is_not_known():
    wide = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    end = ending(workload(repetitions=6), wide, 1.0)
    assert (end.reason, end.repetitions) == ("most", 6)
    assert end.half_width_percent > 5
    assert ending(workload(repetitions=6, budget_s=1), wide, 99.0).reason == "most"


def test_as_narrow_as_asked_is_narrow_enough():
    values = [98.0, 99.0, 100.0, 100.0, 101.0, 102.0]
    assert ending(workload(half_width_percent=2), values, 1.0).reason == "target"
    assert ending(workload(half_width_percent=1.99), values, 1.0) is None


def test_the_least_are_made_although_the_median_is_known():
    assert ending(workload(min=9), [1.0] * 8, 1.0) is None
    assert ending(workload(min=9), [1.0] * 9, 1.0).reason == "target"


def test_what_may_not_be_compared_counts_as_made_and_is_not_looked_at():
    five = [100.0, 100.0, 100.0, 100.0, 100.0]
    assert ending(workload(), [*five, None], 1.0) is None, "five values have no interval"
    assert ending(workload(), [*five, None, 100.0], 1.0).reason == "target"
    end = ending(workload(repetitions=6), [None] * 6, 1.0)
    assert (end.reason, end.half_width_percent) == ("most", None)


def test_repetitions_that_are_fixed_end_at_their_number():
    fixed = Workload(name="w", kind="single", prompts=("p",), repetitions=3)
    assert ending(fixed, [1.0] * 2, 1.0) is None
    assert ending(fixed, [1.0] * 3, 1.0).reason == "most"
