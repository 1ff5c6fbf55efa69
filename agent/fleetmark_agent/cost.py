"""What a trial cost, and the figure that sets cost and speed together. Pure: no clock, no I/O."""

import math

SECONDS_PER_HOUR = 3600.0


def cost_fields(
    usd_per_hour: float | None,
    latency_s: float | None,
    output_tokens: int | None,
    cost_usd: float | None = None,
) -> dict[str, float]:
    """Return the fields of a trial record that say what it cost.

    Formulas: cost_usd = usd_per_hour x latency_s / 3600; eq = 1 / (cost_usd x latency_s);
    eq_per_token = 1 / ((cost_usd / n) x (latency_s / n)) for n output tokens. What would divide by
    zero (a free machine, no tokens) is absent.

    Args:
        usd_per_hour: price of the machine while it works; None where nobody said.
        latency_s: of the request; None where it has none (a failure, a load within the request).
        output_tokens: how many it generated.
        cost_usd: the trial's part of what several cost together; see `round_cost_usd`.
    """
    if usd_per_hour is None or latency_s is None:
        return {}
    if cost_usd is None:
        cost_usd = usd_per_hour * latency_s / SECONDS_PER_HOUR
    fields = {"usd_per_hour": usd_per_hour}
    if not math.isfinite(cost_usd):
        # Whoever named the price did not mean it, and no record holds it.
        return fields
    fields["cost_usd"] = cost_usd
    n = output_tokens or 0
    for name, product in (
        ("eq", cost_usd * latency_s),
        ("eq_per_token", (cost_usd / n) * (latency_s / n) if n else 0.0),
    ):
        # Of the very smallest numbers even the inverse is more than a number holds.
        value = 1 / product if product > 0 else math.inf
        if math.isfinite(value):
            fields[name] = value
    return fields


def round_cost_usd(usd_per_hour: float | None, round_s: float | None, clients: int) -> float | None:
    """Return one client's share of what a round of requests at the same time cost.

    Formula: usd_per_hour x round_s / 3600 / clients

    Args:
        usd_per_hour: price of the machine while it works; None where nobody said.
        round_s: from the first start to the last end; None where it is not known.
        clients: how many asked.
    """
    if usd_per_hour is None or round_s is None:
        return None
    return usd_per_hour * round_s / SECONDS_PER_HOUR / clients
