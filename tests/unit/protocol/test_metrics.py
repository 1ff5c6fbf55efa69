"""Every measured quantity is defined once, and every definition is of something measured."""

import re
import typing
from pathlib import Path

import pytest

from fleetmark_protocol.metric import Metric
from fleetmark_protocol.metrics import METRICS
from fleetmark_protocol.records import LoadRecord, TelemetryRecord, TrialRecord

MEASUREMENTS = (TelemetryRecord, TrialRecord, LoadRecord)

NO_METRICS = {
    # Places and names.
    "time_ns",
    "attempt",
    "trial_index",
    "repetition",
    "prompt_index",
    "client",
    "soak_s",
    # Counts that say what was done, not how well.
    "prompt_tokens",
    "prompt_tokens_evaluated",
    "output_tokens",
    "output_tokens_requested",
    "samples",
    "clients",
    # What the campaign says.
    "usd_per_hour",
    # What was said, in the model's own numbers.
    "prompt_ids",
    "output_ids",
    # What the model is.
    "model_bytes",
    "model_bits_per_weight",
    # As many as the device has cores; `cpu_percent` is their mean.
    "cpu_percent_per_core",
}
"""Numeric fields that are no metrics, each for the reason above it."""

DERIVED = {
    *("session_latency_s", "latency_p95_s"),
    *("burst_tps", "sustained_tps", "time_to_throttle_s"),
}
"""Metrics that no record carries: the report computes them over several."""

UNIT_OF_SUFFIX = {
    "_s": "s",
    "_bytes": "bytes",
    "_bytes_per_s": "bytes/s",
    "_hz": "Hz",
    "_c": "°C",
    "_w": "W",
    "_j": "J",
    "_tps": "tokens/s",
    "_percent": "%",
    "_g": "g",
    "_usd": "USD",
}

UNIT_OF_NAME = {"eq": "1/(USD·s)", "eq_per_token": "tokens²/(USD·s)"}
"""Published under these names, which say no unit."""


def leaves(annotation):
    args = typing.get_args(annotation)
    return {leaf for arg in args for leaf in leaves(arg)} if args else {annotation}


def numeric_fields():
    return {
        name
        for record in MEASUREMENTS
        for name, info in record.model_fields.items()
        if leaves(info.annotation) & {int, float} and "dict" not in str(info.annotation)
    }


def test_every_measured_number_is_a_metric_or_known_not_to_be_one():
    assert numeric_fields() - set(METRICS) - NO_METRICS == set()


def test_what_is_said_to_be_no_metric_is_a_field_and_no_metric():
    assert numeric_fields() >= NO_METRICS
    assert NO_METRICS & set(METRICS) == set()


def test_every_metric_is_a_field_of_a_record_or_derived_by_the_report():
    assert set(METRICS) - numeric_fields() == DERIVED


@pytest.mark.parametrize("name", sorted(DERIVED))
def test_a_derived_metric_is_computed_by_the_report(name):
    root = Path(__file__).parents[3] / "collector" / "fleetmark_collector" / "report"
    assert any(name in file.read_text("utf-8") for file in root.rglob("*.py"))


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_the_unit_in_a_metrics_name_is_its_unit(metric):
    stem = re.sub(r"(_min|_max|_mean|_p\d\d|_before)$", "", metric.name)
    suffix = max((s for s in UNIT_OF_SUFFIX if stem.endswith(s)), key=len, default=None)
    unit = UNIT_OF_SUFFIX[suffix] if suffix else UNIT_OF_NAME.get(metric.name, "1")
    assert metric.unit == unit


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_a_metric_can_be_shown_to_people(metric):
    assert metric.title
    assert metric.description.endswith(".")
    assert (metric.display_unit == "") == (metric.display_scale == 1)
    assert float(metric.show(0.5).replace(",", "")) == pytest.approx(
        0.5 * metric.display_scale, abs=0.5 * 10**-metric.digits
    )


def test_an_absent_number_is_shown_as_absent_never_as_zero():
    assert Metric("x_s", "s", "X", "lower", "X.").show(None) == "-"


def test_titles_that_stand_side_by_side_in_a_report_differ():
    names = set(METRICS) & set(TrialRecord.model_fields)
    titles = [METRICS[name].title for name in sorted(names)]
    assert len(set(titles)) == len(titles)
