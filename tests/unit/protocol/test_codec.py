"""What goes over the wire comes back the same; what is not the contract's never gets through."""

import json
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fleetmark_protocol import codec
from fleetmark_protocol.errors import ContractError
from fleetmark_protocol.messages import (
    MAX_BATCH_RECORDS,
    MAX_PAYLOAD_BYTES,
    Ack,
    Assignment,
    Batch,
    Envelope,
    Inventory,
    Status,
)
from fleetmark_protocol.records import (
    EventRecord,
    JobRecord,
    LoadRecord,
    TelemetryRecord,
    TrialRecord,
)
from fleetmark_protocol.values import MAX_SCALARS
from fleetmark_protocol.version import __version__
from strategies import EXTRAS, JSON_SCALARS, JSON_VALUES, instances

EPOCH = "0b6f3f6e-5d0c-4a52-9b38-6f0b7f3a9c11"
MESSAGES = (Status, Inventory, Ack, Assignment, Batch)
RECORDS = (TelemetryRecord, TrialRecord, LoadRecord, JobRecord, EventRecord)
ANY_MESSAGE = st.one_of(*(instances(kind) for kind in MESSAGES))
ANY_RECORD = st.one_of(*(instances(kind) for kind in RECORDS))
SAMPLE = TelemetryRecord(time_ns=1, boot_id=EPOCH, cpu_percent=12.5)

slow = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def batch_of(*records, epoch=EPOCH):
    """A data message of anything that is JSON, numbered from 1."""
    items = [{"seq": seq, "record": record} for seq, record in enumerate(records, 1)]
    return json.dumps({"epoch": epoch, "records": items}).encode()


def plain(record, **more):
    return {**json.loads(codec.encode(record)), **more}


# --- round trips -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MESSAGES + RECORDS, ids=lambda kind: kind.__name__)
def test_what_is_encoded_decodes_to_the_same(kind):
    @slow
    @given(instances(kind))
    def check(message):
        assert codec.decode(kind, codec.encode(message)) == message

    check()


@slow
@given(ANY_RECORD, EXTRAS)
def test_unknown_plain_fields_of_a_record_survive(record, extras):
    wire = json.dumps(plain(record, **extras)).encode()
    decoded = codec.decode(type(record), wire)
    assert decoded.model_extra == extras
    assert codec.decode(type(record), codec.encode(decoded)) == decoded


@slow
@given(ANY_MESSAGE, st.dictionaries(st.from_regex(r"x_[a-z]{1,5}", fullmatch=True), JSON_VALUES))
def test_unknown_fields_of_a_message_are_ignored(message, extras):
    wire = json.dumps(plain(message, **extras)).encode()
    assert codec.decode(type(message), wire) == message


def test_an_absent_field_is_left_out_and_a_zero_is_not():
    wire = plain(TelemetryRecord(time_ns=0, boot_id=EPOCH, rss_bytes=0))
    assert wire == {"kind": "telemetry", "time_ns": 0, "boot_id": EPOCH, "rss_bytes": 0}


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
@example(0.1 + 0.2)
@example(5e-324)
@example(1.7976931348623157e308)
def test_no_bit_of_a_float_is_lost(value):
    record = TelemetryRecord(time_ns=0, boot_id=EPOCH, power_w=value)
    assert codec.decode(TelemetryRecord, codec.encode(record)).power_w.hex() == value.hex()


@slow
@given(st.lists(ANY_RECORD, max_size=5))
def test_records_joined_unparsed_are_the_batch_they_would_parse_to(records):
    payload = codec.encode_batch(EPOCH, [(n, codec.encode(r)) for n, r in enumerate(records, 1)])
    envelopes = [Envelope(seq=seq, record=record) for seq, record in enumerate(records, 1)]
    said = Batch(epoch=EPOCH, records=envelopes, agent_version=__version__)
    assert codec.decode(Batch, payload) == said
    assert codec.decode_batch(payload) == codec.DecodedBatch(
        EPOCH, envelopes, agent_version=__version__
    )


def test_the_largest_lawful_record_fits_in_a_message():
    wide = "\U0001f600"
    scalars = {f"k{n:063}": wide * 512 for n in range(MAX_SCALARS)}
    record = TrialRecord(
        time_ns=2**63 - 1,
        campaign_id="c" * 63,
        job_id="j" * 160,
        trial_id="t" * 255,
        attempt=2**31 - 1,
        backend=wide * 256,
        model=wide * 256,
        options=scalars,
        trial_index=0,
        workload=wide * 256,
        workload_kind="multi",
        repetition=0,
        prompt_index=0,
        prompt_sha256="0" * 64,
        output_tokens_requested=1,
        output_text=wide * 4096,
        verdict="INVALID",
        verdict_reasons=[wide * 256] * 64,
        failure={"code": wide * 256, "message": wide * 4096, **scalars},
        **scalars,
    )
    payload = codec.encode_batch(EPOCH, [(1, codec.encode(record))])
    assert codec.decode_batch(payload).records[0].record == record


# --- what must not get through ---------------------------------------------------------------


def refuses_or_reads(payload):
    """Whatever the bytes: an answer or a ContractError, nothing else."""
    reasons = []
    for kind in MESSAGES + RECORDS:
        try:
            codec.decode(kind, payload)
        except ContractError as error:
            reasons.append(error.message)
    try:
        reasons += [bad.reason for bad in codec.decode_batch(payload).bad]
    except ContractError as error:
        reasons.append(error.message)
    for reason in reasons:
        assert len(reason) < 1000
        assert reason.isprintable()


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xff\xfe")
@example(b"\xef\xbb\xbf{}")
@example(b'{"epoch":"\xc3\x28"}')
@example(b'"\\ud800"')
def test_arbitrary_bytes_raise_nothing_but_contract_errors(payload):
    refuses_or_reads(payload)


@slow
@given(JSON_VALUES)
def test_arbitrary_json_raises_nothing_but_contract_errors(value):
    refuses_or_reads(json.dumps(value).encode())


@slow
@given(ANY_RECORD, st.data())
def test_a_record_with_one_value_replaced_raises_nothing_but_contract_errors(record, data):
    wire = plain(record)
    wire[data.draw(st.sampled_from(sorted(wire)))] = data.draw(JSON_VALUES)
    refuses_or_reads(batch_of(wire))


@slow
@given(ANY_MESSAGE, st.data())
def test_a_message_with_bytes_changed_raises_nothing_but_contract_errors(message, data):
    payload = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload)))
        payload[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    refuses_or_reads(bytes(payload))


@pytest.mark.parametrize("opening", [b"[", b'{"epoch":', b'{"records":[', b'[{"a":'])
def test_a_hundred_thousand_open_brackets_are_refused(opening):
    payload = (opening * 100_000)[:MAX_PAYLOAD_BYTES]
    with pytest.raises(ContractError, match="recursion"):
        codec.decode_batch(payload)
    with pytest.raises(ContractError, match="recursion"):
        codec.decode(Ack, payload)


def test_a_record_nested_at_any_depth_is_bad_alone_or_fails_the_batch_cleanly():
    # Around Python's own recursion limit the parts of the JSON module fail at different depths.
    salvaged = 0
    for depth in (*range(150, 260, 10), *range(900, 1100)):
        nested = b"[" * depth + b"]" * depth
        payload = b'{"epoch":"%s","records":[{"seq":1,"record":%s},{"seq":2,"record":%s}]}' % (
            EPOCH.encode(),
            codec.encode(SAMPLE),
            nested,
        )
        try:
            decoded = codec.decode_batch(payload)
        except ContractError:
            continue
        assert [envelope.seq for envelope in decoded.records] == [1]
        assert [bad.seq for bad in decoded.bad] == [2]
        salvaged += 1
    assert salvaged >= 11


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
@pytest.mark.parametrize("field", ["power_w", "temperature_c", "x_unknown"])
def test_a_number_that_is_none_is_refused(number, field):
    payload = batch_of(plain(SAMPLE, **{field: 0.5})).replace(b"0.5", number.encode())
    decoded = codec.decode_batch(payload)
    assert decoded.records == []
    assert [bad.seq for bad in decoded.bad] == [1]
    assert field in decoded.bad[0].reason


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_deadline_that_never_comes_is_refused(number):
    assignment = (
        '{"desired":"run","job":{"job_id":"j","campaign_id":"c","backend":"b","model":'
        '{"name":"m","ref":"path:m"},"workloads":[{"name":"w","kind":"single","prompts":["p"]}],'
        f'"timeouts":{{"job_s":{number}}}}}}}'
    )
    with pytest.raises(ContractError, match="job_s"):
        codec.decode(Assignment, assignment.encode())


@pytest.mark.parametrize("digits", [20, 100, 4299, 4301, 100_000])
def test_a_count_beyond_64_bits_is_refused(digits):
    payload = batch_of(plain(SAMPLE, rss_bytes=7)).replace(b" 7", b" 1" + b"0" * digits)
    try:
        decoded = codec.decode_batch(payload)
    except ContractError:
        return  # Python reads no integer of so many digits, so the whole text is unreadable.
    assert decoded.records == []
    assert "rss_bytes" in decoded.bad[0].reason


def test_a_whole_number_beyond_64_bits_in_an_unknown_field_becomes_a_float():
    decoded = codec.decode_batch(batch_of(plain(SAMPLE, x=10**25)))
    assert decoded.records[0].record.model_extra == {"x": 1e25}


@pytest.mark.parametrize("value", ["5", True, [5], {"a": 5}])
def test_a_number_in_other_clothes_is_refused(value):
    assert codec.decode_batch(batch_of(plain(SAMPLE, cpu_percent=value))).records == []
    assert codec.decode_batch(batch_of(plain(SAMPLE, rss_bytes=value))).records == []


def test_of_a_field_that_comes_twice_the_last_counts_whichever_way_a_batch_is_read():
    twice = codec.encode(SAMPLE).replace(b'"time_ns":1', b'"time_ns":1,"time_ns":2')
    alone = codec.decode_batch(codec.encode_batch(EPOCH, [(1, twice)]))
    salvaged = codec.decode_batch(codec.encode_batch(EPOCH, [(1, twice), (2, b"0")]))
    assert alone.records == salvaged.records
    assert alone.records[0].record.time_ns == 2


def test_a_message_too_large_is_refused_unread_and_not_sent():
    payload = b'"' + b"x" * MAX_PAYLOAD_BYTES + b'"'
    with pytest.raises(ContractError, match="at most"):
        codec.decode_batch(payload)
    with pytest.raises(ContractError, match="at most"):
        codec.decode(Status, payload)
    prompts = {"name": "w", "kind": "multi", "prompts": ["x" * 200_000] * 6}
    model = {"name": "m", "ref": "path:m"}
    job = {"job_id": "j", "campaign_id": "c", "backend": "b", "model": model}
    assignment = Assignment.model_validate(
        {"desired": "run", "job": {**job, "workloads": [prompts]}}
    )
    with pytest.raises(ContractError, match="at most"):
        codec.encode(assignment)


def test_nul_in_a_text_is_refused():
    for field in ("code", "message"):
        event = {"kind": "event", "time_ns": 1, "severity": "info", "code": "a", "message": "b"}
        decoded = codec.decode_batch(batch_of({**event, field: "a\0b"}))
        assert field in decoded.bad[0].reason


@pytest.mark.parametrize(
    "extras",
    [
        {f"x{n}": 1 for n in range(MAX_SCALARS + 1)},
        {"x" * 65: 1},
        {"a b": 1},
        {"": 1},
        {"a\n": 1},
        {"ä": 1},
        {"x": "y" * 513},
        {"x": [1]},
        {"x": {"y": 1}},
    ],
    ids=lambda extras: str(extras)[:30],
)
def test_unknown_fields_that_would_bloat_a_store_are_refused(extras):
    decoded = codec.decode_batch(batch_of(plain(SAMPLE, **extras), plain(SAMPLE)))
    assert [envelope.seq for envelope in decoded.records] == [2]
    assert [bad.seq for bad in decoded.bad] == [1]


def test_an_unknown_field_may_be_named_like_a_method():
    extras = {"model_dump": 1, "__class__": "x", "self": True, "copy": 0.5}
    record = codec.decode_batch(batch_of(plain(SAMPLE, **extras))).records[0].record
    assert record.model_extra == extras
    assert plain(record) == plain(SAMPLE, **extras)


def test_a_hundred_thousand_problems_are_counted_not_listed():
    many = {f"x{n}": [] for n in range(50_000)}
    (bad,) = codec.decode_batch(batch_of(plain(SAMPLE, **many))).bad
    assert bad.reason == "50000 problems"


def test_a_reason_holds_no_control_characters_of_the_sender():
    (bad,) = codec.decode_batch(batch_of(plain(SAMPLE, **{"\x1b[31m\n" * 5000: []}))).bad
    assert bad.reason.isprintable()
    assert len(bad.reason) < 1000


# --- batches that are good in part -----------------------------------------------------------

NEVER_A_RECORD = (
    JSON_SCALARS
    | st.lists(JSON_SCALARS, max_size=2)
    | st.fixed_dictionaries({"kind": st.sampled_from(["", "trail", "telemetry", 1, None])})
)


@slow
@given(
    st.lists(
        ANY_RECORD.map(lambda record: (True, plain(record)))
        | st.tuples(st.just(False), NEVER_A_RECORD),
        max_size=8,
    )
)
def test_exactly_the_valid_records_of_a_mixed_batch_are_kept_and_the_others_named(pieces):
    decoded = codec.decode_batch(batch_of(*(piece for _, piece in pieces)))
    good = {seq: piece for seq, (valid, piece) in enumerate(pieces, 1) if valid}
    assert {e.seq: plain(e.record) for e in decoded.records} == good
    assert [bad.seq for bad in decoded.bad] == [
        seq for seq, (valid, _) in enumerate(pieces, 1) if not valid
    ]
    for bad in decoded.bad:
        assert json.loads(bad.raw)["record"] == pieces[bad.seq - 1][1]


@pytest.mark.parametrize("seq", [0, -1, 2**63, 1.5, "1", True, None, [1]])
def test_a_seq_that_is_none_is_not_reported_as_one(seq):
    payload = json.dumps(
        {"epoch": EPOCH, "records": [{"seq": seq, "record": plain(SAMPLE)}, {}, 7]}
    ).encode()
    decoded = codec.decode_batch(payload)
    assert decoded.records == []
    assert [bad.seq for bad in decoded.bad] == [None, None, None]


def test_of_records_with_the_same_seq_the_first_counts_and_its_ack_is_its_own():
    other = TelemetryRecord(time_ns=2, boot_id=EPOCH)
    items = [(1, codec.encode(SAMPLE)), (1, codec.encode(other)), (2, codec.encode(other))]
    decoded = codec.decode_batch(codec.encode_batch(EPOCH, items))
    assert [(e.seq, e.record) for e in decoded.records] == [(1, SAMPLE), (2, other)]
    (bad,) = decoded.bad
    assert bad.seq is None, "acknowledging the bad one would free the good one unwritten"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_bad_record_never_carries_the_seq_of_a_good_one(order):
    items = [(5, codec.encode(SAMPLE)), (5, b"0")]
    decoded = codec.decode_batch(codec.encode_batch(EPOCH, [items[i] for i in order]))
    assert [e.seq for e in decoded.records] == [5]
    assert [bad.seq for bad in decoded.bad] == [None]


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"{}",
        b'{"epoch":"x","records":[]}',
        b'{"epoch":"%s"}' % EPOCH.encode(),
        b'{"epoch":"%s","records":{}}' % EPOCH.encode(),
        b'{"epoch":"%s","records":[]}trailing' % EPOCH.encode(),
        b'{"epoch":"%s\\n","records":[]}' % EPOCH.encode(),
    ],
)
def test_a_batch_without_epoch_or_list_is_refused(payload):
    with pytest.raises(ContractError, match="not a valid Batch"):
        codec.decode_batch(payload)


def test_more_records_than_a_batch_may_hold_are_refused_whether_good_or_bad():
    for piece in (codec.encode(SAMPLE), b"0"):
        items = [(seq, piece) for seq in range(1, MAX_BATCH_RECORDS + 2)]
        with pytest.raises(ContractError, match="not a valid Batch"):
            codec.decode_batch(codec.encode_batch(EPOCH, items))


# --- ranges ----------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 60) | st.integers(1, 2**63 - 1), max_size=60))
def test_ranges_cover_exactly_what_was_given(seqs):
    ranges = codec.to_ranges(seqs)
    assert sum(last - first + 1 for first, last in ranges) == len(set(seqs))
    assert all(any(first <= seq <= last for first, last in ranges) for seq in seqs)
    # Sorted, and with a gap between any two: nothing could be joined further.
    assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))
    assert codec.decode(Ack, codec.encode(Ack(epoch=EPOCH, ranges=ranges))).ranges == tuple(ranges)


@pytest.mark.parametrize("span", [[2, 1], [0, 1], [-1, 1], [1, 2**63], [1], [1, 2, 3], ["1", "2"]])
def test_a_range_that_is_none_is_refused(span):
    with pytest.raises(ContractError, match="ranges"):
        codec.decode(Ack, json.dumps({"epoch": EPOCH, "ranges": [span]}).encode())


def test_ranges_of_an_ack_may_overlap():
    # Acknowledging twice frees nothing more: a collector that folds less well is still right.
    ack = codec.decode(Ack, b'{"epoch":"%s","ranges":[[1,5],[3,9],[3,9]]}' % EPOCH.encode())
    assert ack.ranges == ((1, 5), (3, 9), (3, 9))
