"""The Campaign dashboard: how far one campaign is, what failed, and how sure its figures are."""

from fleetmark_collector.grafana.board import Board, Row
from fleetmark_collector.grafana.charts import lines, number
from fleetmark_collector.grafana.dashboards.kinds import REPETITIONS, SOAKING
from fleetmark_collector.grafana.dashboards.words import JOB_STATES, SUSPECT, VERDICTS
from fleetmark_collector.grafana.links import device_of_row, this_campaign
from fleetmark_collector.grafana.names import CAMPAIGN
from fleetmark_collector.grafana.panels import Panel
from fleetmark_collector.grafana.queries.campaigns import (
    CAMPAIGN_JOBS,
    DOUBTED_TRIALS,
    FAILURES,
    STATES_NOW,
    STATES_OVER_TIME,
    campaign_over_time,
    last_of_campaign,
    trials_of_campaign,
)
from fleetmark_collector.grafana.queries.cells import interval_of_cells
from fleetmark_collector.grafana.tables import Shown, last_of_each, rows
from fleetmark_collector.grafana.units import COUNT, PERCENT, TEXT, metric, unit_of
from fleetmark_collector.grafana.variables import of_cells

FAILED = ((0.1, "orange"), (10.0, "red"))
"""Percent of the jobs that have ended: an alert above 10."""

_TO_DEVICE = (device_of_row(),)

_NOW = Row(
    "Progress",
    (
        number("Name", "As the campaign file says.", [last_of_campaign("name")], TEXT, base="text"),
        number(
            "Progress",
            "Share of the planned trials that need no waiting for: stored, or of a job that has "
            "ended without them.",
            [last_of_campaign("progress_percent")],
            PERCENT,
            base="blue",
            steps=((100.0, "green"),),
            decimals=0,
        ),
        number(
            "Failed jobs",
            "Of the jobs that have ended, those that failed, timed out or were rejected.",
            [last_of_campaign("failed_percent")],
            PERCENT,
            steps=FAILED,
            decimals=1,
        ),
        number(
            "Trials",
            "Recorded, and planned; warm-ups included.",
            [last_of_campaign("trials", "trials_planned")],
            COUNT,
            base="text",
            span=6,
        ),
        number(
            "Verdicts",
            "Trials by verdict, warm-ups left out. INVALID ones are in no figure, SUSPECT ones are "
            "to be read with care.",
            [trials_of_campaign(verdict) for verdict in ("VALID", "SUSPECT", "INVALID")],
            COUNT,
            base="text",
            span=6,
        ),
        number(
            "Jobs by state",
            "How many jobs of the campaign are in each state now.",
            [STATES_NOW],
            COUNT,
            base="text",
            span=24,
            height=3,
        ),
    ),
)

_OVER_TIME = Row(
    "Over time",
    (
        lines(
            "Jobs by state over time",
            "How many jobs were in each state, as the collector saw it.",
            [STATES_OVER_TIME],
            COUNT,
            floor=0,
            calcs=("lastNotNull",),
            stacked=True,
        ),
        lines(
            "Progress over time",
            "Of the planned trials, those that need no waiting for; of the jobs that have ended, "
            "those that failed.",
            [campaign_over_time("progress_percent", "failed_percent")],
            PERCENT,
            floor=0,
            ceiling=100,
            calcs=("lastNotNull",),
        ),
    ),
)

_JOBS = Row(
    "Jobs and failures",
    (
        rows(
            "Jobs",
            "The last that each job's device said of it. Jobs that no device has begun are missing "
            "here.",
            [CAMPAIGN_JOBS],
            [
                Shown("job_id", "Job"),
                Shown("device (first)", "Device"),
                Shown("state (first)", "State", meaning=JOB_STATES),
                Shown("attempt (first)", "Attempt"),
                Shown("trials_recorded (first)", "Trials recorded"),
                Shown("trials_planned (first)", "Trials planned"),
                Shown("failure_code (first)", "Failure"),
            ],
            transformations=(
                last_of_each(
                    "job_id",
                    "device",
                    "state",
                    "attempt",
                    "trials_recorded",
                    "trials_planned",
                    "failure_code",
                ),
            ),
            span=12,
        ),
        rows(
            "Failures",
            "Every typed failure of a job, a model load or a trial, the newest first. "
            "docs/errors.md says what to do about each code.",
            [FAILURES],
            [
                Shown("failure_code", "Failure"),
                Shown("failure_message", "Message"),
                Shown("job_id", "Job"),
                Shown("device", "Device", links=_TO_DEVICE),
                Shown("fleet", "Fleet"),
            ],
            with_time=True,
            span=12,
        ),
        rows(
            "Doubtful trials",
            "SUSPECT and INVALID trials with the reasons, the newest first.",
            [DOUBTED_TRIALS],
            [
                Shown("verdict", "Verdict", meaning=VERDICTS),
                Shown("verdict_reasons", "Reasons"),
                Shown("device", "Device", links=_TO_DEVICE),
                Shown("backend", "Backend"),
                Shown("model", "Model"),
                Shown("quantization", "Quantization"),
                Shown("workload", "Workload"),
                Shown("trial_id", "Trial"),
            ],
            with_time=True,
            height=8,
        ),
    ),
)


def _interval(title: str, field: str) -> Panel:
    found = metric(field)
    unit = unit_of(found)
    return rows(
        title,
        f"{found.description} Median of each cell with the interval around it, computed by the "
        "report's own code; no interval where the sessions are too few to make one.",
        [interval_of_cells(field)],
        [
            Shown("device", "Device", links=_TO_DEVICE),
            Shown("backend", "Backend"),
            Shown("model", "Model"),
            Shown("quantization", "Quantization"),
            Shown("workload", "Workload"),
            Shown("options", "Options"),
            Shown(f"{field}_low", "from", unit),
            Shown(field, found.title, unit, gauge=True),
            Shown(f"{field}_high", "to", unit),
            Shown("trials", "Trials", COUNT),
            Shown("trials_suspect", "SUSPECT", COUNT, steps=SUSPECT),
            Shown("fleet", "Fleet"),
            Shown("campaign_id", "Campaign"),
        ],
        sort_by="Device",
        height=9,
    )


BOARD = Board(
    uid=CAMPAIGN,
    title="Campaign",
    description="How far a campaign is, the states of its jobs, what failed and why, and how sure "
    "the figures of each cell are. For an older campaign, choose a time it lies in.",
    rows=(
        _NOW,
        _OVER_TIME,
        _JOBS,
        Row(
            "Intervals of each cell",
            (
                _interval("Latency, with intervals", "latency_s"),
                _interval("Session latency, with intervals", "session_latency_s"),
                _interval("TTFT, with intervals", "ttft_s"),
                _interval("Decode, with intervals", "decode_tps"),
                _interval("Throughput, with intervals", "throughput_tps"),
                _interval("EQ, with intervals", "eq"),
                REPETITIONS,
            ),
        ),
        SOAKING,
    ),
    variables=tuple(of_cells()),
    start="now-7d",
    refresh="30s",
    links=tuple(this_campaign()[1:]),
)
