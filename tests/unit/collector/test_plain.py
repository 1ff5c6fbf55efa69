"""The quick reader of data messages decides as the codec does, whatever it is given."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collected import BOOT, EPOCH, data, job, telemetry, trial
from fleetmark_collector import plain
from fleetmark_collector.plain import PlainTelemetry
from fleetmark_protocol import codec
from fleetmark_protocol.errors import ContractError
from fleetmark_protocol.messages import MAX_BATCH_RECORDS, MAX_PAYLOAD_BYTES
from fleetmark_protocol.records import (
    EventRecord,
    JobRecord,
    LoadRecord,
    TelemetryRecord,
    TrialRecord,
)
from strategies import EXTRAS, JSON_VALUES, instances

slow = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
RECORDS = st.one_of(
    instances(TelemetryRecord),
    instances(TelemetryRecord),
    *(instances(kind) for kind in (TrialRecord, LoadRecord, JobRecord, EventRecord)),
)
FIELDS = [name for name in TelemetryRecord.model_fields if not name.startswith("__")]

HOSTILE = (
    *("0", "-0", "1", "-1", "1.0", "1.5", "-0.0", "1e2", "1E2", "1e-2", "100", "100.0"),
    *("100.00000000000001", "101", "0.1", "5e-324", "1e-400", "1e308", "1e309", "-1e309", "1e999"),
    *("9007199254740993", "9007199254740993.0", "9223372036854775807", "9223372036854775808"),
    *("-9223372036854775808", "18446744073709551615", "18446744073709551616", "1" * 400),
    *("1" + "0" * 308 + ".0", "0." + "3" * 400, "01", "+1", ".5", "1.", "0x1", "1_0", "- 1"),
    *("NaN", "Infinity", "-Infinity", "nan", "null", "true", "false", '"1"', '""', '"12.5"'),
    *("[]", "[1]", "[null]", "[101]", "[1,2.5]", '["1"]', "[[1]]", "[true]", "{}", '{"a":1}'),
    *(
        '"telemetry"',
        '"\\ud800"',
        '"\\u0000"',
        '"\\u0031"',
        f'"{EPOCH}"',
        f'"{EPOCH}\\n"',
        '"c.pi.1"',
    ),
    *("[" * 300 + "]" * 300, "tru", "", " 1 ", "1 1", "1,", "//1", "/**/1"),
)


def outcome(decode, payload):
    """Return what there is to compare of what became of a message."""
    try:
        decoded = decode(payload)
    except ContractError as error:
        return "refused", error.message
    if isinstance(decoded, plain.PlainBatch):
        pairs = zip(decoded.seqs, decoded.records, strict=True)
    else:
        pairs = ((one.seq, one.record) for one in decoded.records)
    made = [
        (seq, record.record() if isinstance(record, PlainTelemetry) else record)
        for seq, record in pairs
    ]
    # Their repr too: 1 == 1.0 == True and 0.0 == -0.0.
    return decoded.epoch, made, repr(made), decoded.bad


def assert_decides_alike(payload: bytes) -> None:
    assert outcome(plain.decode_batch, payload) == outcome(codec.decode_batch, payload)


def is_read_quickly(payload: bytes) -> bool:
    records = plain.decode_batch(payload).records
    return bool(records) and all(isinstance(record, PlainTelemetry) for record in records)


def sample(**raw: str) -> bytes:
    """A message of one sample, with JSON texts for some of its fields."""
    fields = {
        "kind": '"telemetry"',
        "time_ns": "1",
        "boot_id": f'"{BOOT}"',
        "cpu_percent": "12.5",
        **raw,
    }
    text = ",".join(f'"{name}":{value}' for name, value in fields.items())
    return f'{{"epoch":"{EPOCH}","records":[{{"seq":1,"record":{{{text}}}}}]}}'.encode()


@slow
@given(st.lists(instances(TelemetryRecord), min_size=1, max_size=6))
def test_telemetry_is_read_quickly_and_is_the_record_that_was_sent(records):
    payload = data(*enumerate(records, start=1))
    assert is_read_quickly(payload)
    decoded = plain.decode_batch(payload)
    assert [one.record() for one in decoded.records] == records
    assert [one.time_ns for one in decoded.records] == [one.time_ns for one in records]
    assert decoded.seqs == list(range(1, len(records) + 1))
    assert_decides_alike(payload)


@slow
@given(st.lists(st.tuples(RECORDS, EXTRAS), max_size=5))
def test_any_mixture_of_records_and_unknown_fields_comes_out_as_from_the_codec(mixture):
    items = [
        {"seq": seq, "record": {**json.loads(codec.encode(record)), **extras}}
        for seq, (record, extras) in enumerate(mixture, start=1)
    ]
    assert_decides_alike(json.dumps({"epoch": EPOCH, "records": items}).encode())


@pytest.mark.parametrize("name", FIELDS)
def test_a_hostile_value_of_any_field_is_taken_or_refused_as_by_the_codec(name):
    for value in HOSTILE:
        assert_decides_alike(sample(**{name: value}))


@slow
@given(st.sampled_from(FIELDS), st.floats() | st.integers())
def test_any_number_in_any_field_is_taken_or_refused_as_by_the_codec(name, number):
    assert_decides_alike(sample(**{name: json.dumps(number)}))


@slow
@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_no_bit_of_a_float_is_lost(value):
    payload = data((1, telemetry(power_w=value)))
    assert is_read_quickly(payload)
    assert plain.decode_batch(payload).records[0].power_w.hex() == value.hex()


@slow
@given(JSON_VALUES)
def test_any_json_is_taken_or_refused_as_by_the_codec(value):
    assert_decides_alike(json.dumps(value).encode())
    assert_decides_alike(json.dumps({"epoch": EPOCH, "records": value}).encode())
    assert_decides_alike(
        json.dumps({"epoch": EPOCH, "records": [{"seq": 1, "record": value}]}).encode()
    )


@slow
@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused_as_by_the_codec(junk):
    assert_decides_alike(junk)


GOOD = sample()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        GOOD + b" ",
        b" \n" + GOOD,
        GOOD + b"x",
        GOOD + GOOD,
        GOOD[:-1],
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        GOOD.replace(b'"seq":1', b'"seq":0'),
        GOOD.replace(b'"seq":1', b'"seq":1.0'),
        GOOD.replace(b'"seq":1', b'"seq":true'),
        GOOD.replace(b'"seq":1', b'"seq":9223372036854775808'),
        GOOD.replace(b'"seq":1', b'"seq":1,"seq":2'),
        GOOD.replace(b'"seq":1', b'"seq":1,"more":{"a":[1]}'),
        GOOD.replace(b'"seq":1,', b""),
        GOOD.replace(b'"epoch"', b'"more":"\xff","epoch"'),
        GOOD.replace(b'"epoch"', b'"more":1,"epoch"'),
        GOOD.replace(EPOCH.encode(), EPOCH.upper().encode()),
        GOOD.replace(EPOCH.encode(), EPOCH.encode() + b"\\n"),
        GOOD.replace(BOOT.encode(), b"\xff\xfe"),
        GOOD.replace(b'"cpu_percent"', b'"cpu_percent":1,"cpu_percent"'),
        GOOD.replace(b'"cpu_percent"', b'"cpu_percent":"x","cpu_percent"'),
        GOOD.replace(b'"cpu_percent"', b'"kind":"job","cpu_percent"'),
        GOOD.replace(b'"cpu_percent"', b'"cpu\\u005fpercent"'),
        GOOD.replace(b'"cpu_percent"', b'"\xff"'),
        GOOD.replace(b'"cpu_percent"', b'"__dict__"'),
        GOOD.replace(b'"kind":"telemetry",', b""),
        GOOD.replace(b'"telemetry"', b'"Telemetry"'),
        GOOD.replace(b'"time_ns":1,', b""),
        GOOD.replace(b"[", b"[" * 100_000),
        GOOD.replace(b'"records"', b'"records":[],"records"'),
    ],
    ids=lambda payload: f"{payload[:60]!r}",
)
def test_an_odd_message_is_taken_or_refused_as_by_the_codec(payload):
    assert_decides_alike(payload)


def test_the_bounds_of_a_message_are_those_of_the_codec():
    whole = data(*((seq, telemetry(seq)) for seq in range(1, MAX_BATCH_RECORDS + 1)))
    assert is_read_quickly(whole)
    assert_decides_alike(data(*((n, telemetry(n)) for n in range(1, MAX_BATCH_RECORDS + 2))))
    assert_decides_alike(GOOD + b" " * (MAX_PAYLOAD_BYTES - len(GOOD)))
    assert_decides_alike(GOOD + b" " * (MAX_PAYLOAD_BYTES - len(GOOD) + 1))


def test_a_seq_that_comes_twice_is_the_codecs_matter():
    assert_decides_alike(data((1, telemetry(1)), (1, telemetry(2)), (2, telemetry(3))))


def test_other_kinds_are_records_as_ever():
    batch = plain.decode_batch(data((1, job()), (2, trial()), (3, telemetry())))
    assert batch.records == [job(), trial(), telemetry()]


def test_what_was_absent_or_null_is_none_and_no_part_of_the_record():
    payload = sample(power_w="null")
    assert is_read_quickly(payload)
    assert_decides_alike(payload)
    (one,) = plain.decode_batch(payload).records
    assert one.power_w is None
    assert one.load_1m is None
    assert json.loads(one.as_json()).keys() == {"kind", "time_ns", "boot_id", "cpu_percent"}
    assert one.record().model_dump(exclude_none=True).keys() == json.loads(one.as_json()).keys()


@slow
@given(instances(TelemetryRecord))
def test_its_json_is_the_json_of_the_record(record):
    (one,) = plain.decode_batch(data((1, record))).records
    assert TelemetryRecord.model_validate_json(one.as_json(), strict=True) == record
    assert json.loads(one.as_json()) == json.loads(codec.encode(record))


def test_its_fields_are_those_of_the_record():
    assert set(plain.TELEMETRY_FIELDS) == set(FIELDS)
