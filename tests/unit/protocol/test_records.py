"""Records: what they keep, what they refuse, and how foreign text is made fit for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fleetmark_protocol.records import RECORD, EventRecord, Failure, TelemetryRecord, TrialRecord
from fleetmark_protocol.values import MAX_TEXT, clip
from strategies import instances

BOOT = "0b6f3f6e-5d0c-4a52-9b38-6f0b7f3a9c11"


@given(
    st.text(st.characters(), max_size=50)
    | st.binary(max_size=40).map(lambda b: b.decode("utf-8", "surrogateescape"))
)
def test_any_text_is_fit_for_a_record_once_clipped(text):
    failure = Failure(code="BACKEND", message=clip(text))
    assert Failure.model_validate_json(failure.model_dump_json()) == failure
    assert len(clip(text)) == len(text)


def test_clipping_cuts_at_the_length_of_a_text_and_leaves_good_text_alone():
    assert clip("x" * (MAX_TEXT + 1)) == "x" * MAX_TEXT
    assert clip("ab\0c\ud800", 4) == "ab\ufffdc"
    assert clip("naïve\n\ttext \U0001f600") == "naïve\n\ttext \U0001f600"


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * (MAX_TEXT + 1)])
def test_text_that_was_not_clipped_is_refused_where_it_is_made(text):
    with pytest.raises(ValidationError):
        Failure(code="BACKEND", message=text)


@given(instances(TelemetryRecord))
def test_a_record_is_recognised_by_its_kind_and_cannot_be_changed(record):
    assert RECORD.validate_json(RECORD.dump_json(record)) == record
    with pytest.raises(ValidationError):
        record.time_ns = 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpu_percent": 100.1},
        {"cpu_percent": -0.1},
        {"rss_bytes": -1},
        {"time_ns": -1},
        {"time_ns": 2**63},
        {"boot_id": "x"},
        {"job_id": "a/b"},
        {"cpu_percent_per_core": [1.0] * 1025},
        {"throttled": 2},
        {"throttled": -1},
        {"throttled_bits": -1},
        {"outbox_used_percent": 100.1},
        {"outbox_records": 0.5},
    ],
    ids=str,
)
def test_a_sample_out_of_range_is_refused(wrong):
    with pytest.raises(ValidationError):
        TelemetryRecord.model_validate({"time_ns": 1, "boot_id": BOOT, **wrong})


def test_a_verdict_is_never_left_out():
    assert TrialRecord.model_fields["verdict"].is_required()


def test_data_of_an_event_is_bounded_in_number_and_length():
    event = {"time_ns": 1, "severity": "info", "code": "C", "message": "m"}
    EventRecord.model_validate({**event, "data": {f"k{n}": "v" * 512 for n in range(64)}})
    for data in ({f"k{n}": 1 for n in range(65)}, {"k": "v" * 513}, {"k" * 65: 1}, {"": 1}):
        with pytest.raises(ValidationError):
            EventRecord.model_validate({**event, "data": data})
