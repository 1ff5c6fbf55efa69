"""What Grafana watches while nobody looks: five rules, each with what to do when it fires."""

from dataclasses import dataclass
from typing import Any, Literal

from grafana_foundation_sdk.models import dashboard as sdk
from grafana_foundation_sdk.models import expr

from fleetmark_collector.grafana.board import to_json
from fleetmark_collector.grafana.catalogue import BOARDS
from fleetmark_collector.grafana.influxql import Query
from fleetmark_collector.grafana.names import (
    ALERT_FOLDER_TITLE,
    ALERT_FOLDER_UID,
    ALERT_GROUP,
    CAMPAIGN,
    COLLECTOR,
    DATASOURCE_UID,
    DEVICE,
    FLEET,
)
from fleetmark_collector.grafana.panels import Target, plain
from fleetmark_collector.grafana.queries.watching import (
    DEAD_LETTERS,
    FAILING,
    OUTBOX,
    SILENT,
    THROTTLING,
)

EXPRESSION = "__expr__"
"""Grafana's name for what it computes itself from the answers of a datasource."""

EVERY_S = 60
"""How often the rules are evaluated."""

INTERVAL_MS = 10_000
MAX_POINTS = 43_200

Reducer = Literal["last", "max"]


@dataclass(frozen=True)
class Alert:
    """A rule: it fires for each series whose value is above a limit for long enough.

    Attributes:
        query: answers with a value per series.
        reducer: makes one number of a series, should it have several.
        above: the limit, itself not included.
        pending: how long the value must stay above it; `0s` fires at once.
        window_s: how far back the queries look.
        no_data: what no answer at all means. `OK`: those who have nothing to say are well.
        summary, action: what has happened, and what to do; `{{ $labels.device }}` and the like are
            filled in.
        dashboard, panel: uid and title of where to look.
    """

    uid: str
    title: str
    query: Query
    reducer: Reducer
    above: float
    pending: str
    window_s: int
    no_data: Literal["NoData", "OK"]
    severity: Literal["warning", "critical"]
    summary: str
    action: str
    dashboard: str
    panel: str


ALERTS: tuple[Alert, ...] = (
    Alert(
        uid="fleetmark-device-silent",
        title="Device silent",
        query=SILENT,
        reducer="last",
        above=300,
        pending="1m",
        window_s=600,
        # The collector observes every known device, silent or not. No answer at all means that
        # no collector writes, which nobody else would notice.
        no_data="NoData",
        severity="critical",
        summary="{{ $labels.device }} of fleet {{ $labels.fleet }} has said nothing for "
        "{{ printf `%.0f` $values.B.Value }} s.",
        action="See whether the device has power and network, and whether fleetmark-agent runs on "
        "it (systemctl status fleetmark-agent). Its outbox keeps what it records meanwhile. Where "
        "no device is named, no collector writes observations: look at the collector.",
        dashboard=FLEET,
        panel="Silence",
    ),
    Alert(
        uid="fleetmark-device-throttled",
        title="Device throttled",
        query=THROTTLING,
        reducer="max",
        above=0,
        pending="0s",
        window_s=300,
        # A device that does not say whether it is throttled is nothing to wake anybody for.
        no_data="OK",
        severity="warning",
        summary="The processor of {{ $labels.device }} of fleet {{ $labels.fleet }} is or was "
        "slowed down within the last five minutes.",
        action="Cool it, or give it a supply that holds its voltage. What it measures meanwhile is "
        "SUSPECT: measure it again.",
        dashboard=DEVICE,
        panel="Throttling",
    ),
    Alert(
        uid="fleetmark-outbox-near-cap",
        title="Outbox near its cap",
        query=OUTBOX,
        reducer="last",
        above=80,
        pending="5m",
        window_s=600,
        no_data="OK",
        severity="warning",
        summary="The outbox of {{ $labels.device }} of fleet {{ $labels.fleet }} is "
        "{{ printf `%.0f` $values.B.Value }} % full.",
        action="From 90 % on, old telemetry is thinned; results stay. See whether broker and "
        "collector keep up (Collector dashboard), or raise outbox.max_bytes on the device.",
        dashboard=DEVICE,
        panel="Outbox",
    ),
    Alert(
        uid="fleetmark-dead-letters",
        title="Dead letters",
        query=DEAD_LETTERS,
        reducer="last",
        above=0,
        pending="0s",
        window_s=900,
        no_data="OK",
        severity="warning",
        summary="Collector {{ $labels.collector }} put records or messages into the dead letters "
        "within the last 15 minutes.",
        action="Read dead_letters.jsonl in the collector's data directory: each line has topic and "
        "reason. Often an agent is newer or older than the collector.",
        dashboard=COLLECTOR,
        panel="Dead letters",
    ),
    Alert(
        uid="fleetmark-campaign-failing",
        title="Campaign failing",
        query=FAILING,
        reducer="last",
        above=10,
        pending="1m",
        window_s=900,
        # No campaign is under way.
        no_data="OK",
        severity="warning",
        summary="{{ printf `%.0f` $values.B.Value }} % of the jobs of campaign "
        "{{ $labels.campaign_id }} that have ended failed.",
        action="The Campaign dashboard lists every failure with its code; docs/errors.md says what "
        "to do about each. `fleetmark campaign cancel` stops the rest.",
        dashboard=CAMPAIGN,
        panel="Failures",
    ),
)


def steps(alert: Alert) -> list[dict[str, Any]]:
    """Return what Grafana evaluates: a query, one number of each series, and its limit."""
    return [
        _step("A", DATASOURCE_UID, alert.window_s, asked(alert)),
        # Points without a number (a device that was never heard) count as none.
        _step(
            "B",
            EXPRESSION,
            0,
            _computed(
                expr.TypeReduce(
                    ref_id="B",
                    expression="A",
                    reducer=alert.reducer,
                    settings=expr.ExprTypeReduceSettings(mode="dropNN"),
                )
            ),
        ),
        _step(
            "C",
            EXPRESSION,
            0,
            _computed(
                expr.TypeThreshold(
                    ref_id="C",
                    expression="B",
                    conditions=[
                        expr.ExprTypeThresholdConditions(
                            evaluator=expr.ExprTypeThresholdConditionsEvaluator(
                                type_val="gt", params=[alert.above]
                            )
                        )
                    ],
                )
            ),
        ),
    ]


def asked(alert: Alert) -> dict[str, Any]:
    """Return the query of a rule as Grafana keeps it."""
    timing = {"intervalMs": INTERVAL_MS, "maxDataPoints": MAX_POINTS}
    return {**plain(Target(alert.query, "A")), **timing}


def rule(alert: Alert) -> dict[str, Any]:
    """Return a rule with what its two forms, file and HTTP API, have in common."""
    return {
        "uid": alert.uid,
        "title": alert.title,
        "condition": "C",
        "data": steps(alert),
        "noDataState": alert.no_data,
        # A query that fails is always to be told: a rule that cannot look must not look well.
        "execErrState": "Error",
        "for": alert.pending,
        "annotations": {
            "summary": alert.summary,
            "description": alert.action,
            # Grafana takes both or none.
            "__dashboardUid__": alert.dashboard,
            "__panelId__": str(_panel_id(alert.dashboard, alert.panel)),
        },
        "labels": {"severity": alert.severity, "source": "fleetmark"},
        "isPaused": False,
    }


def group_for_file() -> dict[str, Any]:
    """Return the rules as Grafana reads them from a file."""
    return {
        "orgId": 1,
        "name": ALERT_GROUP,
        "folder": ALERT_FOLDER_TITLE,
        "interval": f"{EVERY_S}s",
        "rules": [
            {
                **rule(alert),
                "dashboardUid": alert.dashboard,
                "panelId": _panel_id(alert.dashboard, alert.panel),
            }
            for alert in ALERTS
        ],
    }


def group_for_api() -> dict[str, Any]:
    """Return the rules as Grafana's HTTP API takes them."""
    place = {"folderUID": ALERT_FOLDER_UID, "ruleGroup": ALERT_GROUP, "orgID": 1}
    return {
        "title": ALERT_GROUP,
        "folderUid": ALERT_FOLDER_UID,
        "interval": EVERY_S,
        "rules": [{**rule(alert), **place} for alert in ALERTS],
    }


def _step(ref_id: str, datasource_uid: str, window_s: int, model: dict[str, Any]) -> dict[str, Any]:
    return {
        "refId": ref_id,
        "relativeTimeRange": {"from": window_s, "to": 0},
        "datasourceUid": datasource_uid,
        "model": model,
    }


def _computed(expression: expr.TypeReduce | expr.TypeThreshold) -> dict[str, Any]:
    expression.datasource = sdk.DataSourceRef(type_val=EXPRESSION, uid=EXPRESSION)
    return plain(expression)


def _panel_id(uid: str, title: str) -> int:
    """Return the number of a panel on its dashboard, which the SDK's model does not know yet."""
    board = next(board for board in BOARDS if board.uid == uid)
    found = [panel["id"] for panel in to_json(board)["panels"] if panel["title"] == title]
    return int(found[0])
