"""How a campaign goes, what failed in it, and what is to be doubted."""

from fleetmark_collector.grafana.influxql import INTERVAL, Query, column, literal, name
from fleetmark_collector.grafana.queries.conditions import NOT_WARMUP, THIS_CAMPAIGN

JOB_STATES = (
    "succeeded",
    "in_progress",
    "queued",
    "failed",
    "timed_out",
    "canceled",
    "rejected",
)


def last_of_campaign(*fields: str) -> Query:
    """What is known of one campaign now."""
    return Query(
        tuple(column(field, "last") for field in fields),
        "campaign",
        THIS_CAMPAIGN,
        alias="[[col]]",
    )


def campaign_over_time(*fields: str) -> Query:
    """How a campaign went, one line a field."""
    columns = tuple(column(field, "last") for field in fields)
    return Query(columns, "campaign", THIS_CAMPAIGN, every=INTERVAL, alias="[[col]]")


STATES_NOW = last_of_campaign(*(f"jobs_{state}" for state in JOB_STATES))
STATES_OVER_TIME = campaign_over_time(*(f"jobs_{state}" for state in JOB_STATES))

CAMPAIGN_JOBS = Query(
    (
        *map(column, ("job_id", "state", "fleet", "device", "attempt", "trials_recorded")),
        *map(column, ("trials_planned", "failure_code")),
    ),
    "job",
    THIS_CAMPAIGN,
    newest=1000,
).table()
"""All changes of state, the newest first; the panel keeps the newest of each job."""

FAILURES = Query(
    tuple(map(column, ("failure_code", "failure_message", "job_id", "fleet", "device"))),
    ("job", "load", "trial"),
    (*THIS_CAMPAIGN, f"{name('failure_code')} != {literal('')}"),
    newest=200,
).table()

DOUBTED_TRIALS = Query(
    (
        *map(column, ("verdict", "verdict_reasons", "fleet", "device", "backend", "model")),
        *map(column, ("quantization", "workload", "trial_id")),
    ),
    "trial",
    (*THIS_CAMPAIGN, f"{name('verdict')} != {literal('VALID')}"),
    newest=200,
).table()


def trials_of_campaign(verdict: str) -> Query:
    """How many trials of a campaign had a verdict, warm-ups left out."""
    where = (*THIS_CAMPAIGN, f"{name('verdict')} = {literal(verdict)}", NOT_WARMUP)
    return Query((column("verdict", "count", verdict),), "trial", where, alias=verdict)
