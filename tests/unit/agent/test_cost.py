"""What a trial cost, and EQ; nothing is ever divided by zero."""

import math

import pytest

from fleetmark_agent.cost import cost_fields, round_cost_usd


def test_a_trial_costs_the_machines_price_for_its_time():
    fields = cost_fields(0.36, 100.0, 50)
    assert fields == {
        "usd_per_hour": 0.36,
        "cost_usd": pytest.approx(0.01),
        "eq": pytest.approx(1.0),
        "eq_per_token": pytest.approx(1 / ((0.01 / 50) * (100 / 50))),
    }


def test_eq_doubles_with_half_the_price_and_with_half_the_latency_four_times():
    base = cost_fields(1.0, 10.0, 8)["eq"]
    assert cost_fields(0.5, 10.0, 8)["eq"] == pytest.approx(2 * base)
    # Half the latency is half the cost as well.
    assert cost_fields(1.0, 5.0, 8)["eq"] == pytest.approx(4 * base)


def test_a_free_machine_costs_nothing_and_has_no_eq():
    assert cost_fields(0.0, 10.0, 8) == {"usd_per_hour": 0.0, "cost_usd": 0.0}


@pytest.mark.parametrize(("price", "latency_s"), [(None, 1.0), (1.0, None), (None, None)])
def test_without_a_price_or_a_latency_there_is_no_cost(price, latency_s):
    assert cost_fields(price, latency_s, 8) == {}


@pytest.mark.parametrize("tokens", [0, None])
def test_no_tokens_have_no_eq_per_token(tokens):
    assert set(cost_fields(1.0, 10.0, tokens)) == {"usd_per_hour", "cost_usd", "eq"}


@pytest.mark.parametrize(("price", "latency_s"), [(1.0, 0.0), (5e-324, 1e-5), (1e-300, 1e-10)])
def test_what_no_number_can_hold_is_absent(price, latency_s):
    fields = cost_fields(price, latency_s, 3)
    assert "eq" not in fields
    assert all(math.isfinite(value) for value in fields.values())


def test_a_price_beyond_all_numbers_costs_no_record():
    assert cost_fields(1.7e308, 100.0, 3) == {"usd_per_hour": 1.7e308}
    assert cost_fields(1.7e308, 100.0, 3, round_cost_usd(1.7e308, 100.0, 2)) == {
        "usd_per_hour": 1.7e308
    }


def test_clients_at_the_same_time_share_the_price_of_their_round():
    share = round_cost_usd(0.36, 100.0, 4)
    assert share == pytest.approx(0.01 / 4)
    fields = cost_fields(0.36, 80.0, 10, share)
    assert fields["cost_usd"] == share
    assert fields["eq"] == pytest.approx(1 / (share * 80))
    assert round_cost_usd(None, 1.0, 4) is None
    assert round_cost_usd(1.0, None, 4) is None
