"""Lines of InfluxDB's protocol: each record has its place, and nothing a value holds escapes it."""

import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collected import EPOCH, OTHER_EPOCH, data, event, job, load, stored, telemetry, trial
from fleetmark_collector import plain
from fleetmark_collector.sinks.base import Point
from fleetmark_collector.sinks.influxdb.lines import Lines, point_line
from fleetmark_collector.sinks.influxdb.schema import (
    FAILURE,
    MAX_NEW_SERIES,
    MAX_NEW_WEEKS,
    MAX_OPTIONS_TAG,
    MAX_TIME_NS,
    MEASUREMENTS,
    RECORDS,
    REST,
    TAGS,
    WEEK_BITS,
    field_type,
)
from fleetmark_collector.sinks.influxdb.series import SeriesBudget
from fleetmark_collector.sinks.influxdb.tags import options_text, tag_text
from fleetmark_protocol.records import TelemetryRecord
from strategies import instances


@pytest.fixture
def lines() -> Lines:
    return Lines()


def parts_of(line: bytes) -> tuple[str, dict[str, str], str]:
    """Take telemetry apart: measurement and tags, fields, time."""
    head, fields, time_ns = line.decode().split(" ")
    return head, dict(re.findall(r'(\w+)=("[^"]*"|[^,]+)', fields)), time_ns


def fields_of(line: bytes) -> str:
    return line.decode().partition(" ")[2]


def test_a_line_has_measurement_tags_fields_and_time(lines):
    item = stored(
        telemetry(2, cpu_percent_per_core=(1.5, 2), mem_total_bytes=8, job_id="c.pi.1"), 7
    )
    assert lines.line(item).decode() == (
        f'telemetry,fleet=lab,device=pi epoch="{EPOCH}",cpu_percent_per_core="[1.5,2.0]",seq=7i,'
        f'fields=8i,boot_id="{item.record.boot_id}",job_id="c.pi.1",cpu_percent=12.5,'
        "mem_total_bytes=8i 2000000000"
    )


@settings(max_examples=100, deadline=None)
@given(st.one_of(*map(instances, RECORDS.values())))
def test_a_line_says_how_many_fields_it_has(record):
    record = record.model_copy(update={"time_ns": min(record.time_ns, MAX_TIME_NS)})
    line = Lines().line(stored(record)).decode()
    _, fields, _ = re.fullmatch(r"((?:\\.|[^ ])+) (.*) (\d+)", line, re.DOTALL).groups()
    names = re.findall(r'(\w+)=(?:"(?:\\.|[^"\\])*"|[^,"]+)(?:,|$)', fields, re.DOTALL)
    assert f"fields={len(names)}i," in fields
    assert len(names) == len(set(names))


@settings(max_examples=60, deadline=None)
@given(instances(TelemetryRecord))
def test_a_sample_that_never_became_a_record_makes_the_line_of_the_record(record):
    record = record.model_copy(update={"time_ns": min(record.time_ns, MAX_TIME_NS)})
    (sample,) = plain.decode_batch(data((7, record))).records
    assert isinstance(sample, plain.PlainTelemetry)
    lines = Lines()
    assert parts_of(lines.line(stored(sample, 7))) == parts_of(lines.line(stored(record, 7)))


SOMETIMES = st.fixed_dictionaries(
    {},
    optional={
        "job_id": st.sampled_from(["c.pi.1", "null"]),
        "cpu_percent_per_core": st.lists(st.floats(0, 100), max_size=3).map(tuple),
        "load_1m": st.floats(0, 9),
        "power_w": st.floats(0, 9),
        "mem_total_bytes": st.integers(0, 2**63 - 1),
    },
)
ANYTHING = st.one_of(
    *[SOMETIMES.map(lambda values: telemetry(**values))] * 4,
    st.sampled_from([trial(output_text="a\nb"), load(), job(), event(), telemetry(fan_hz=5)]),
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(ANYTHING, st.sampled_from(["pi", "ec2"])), max_size=12), st.integers(1, 5)
)
def test_lines_made_together_are_those_made_one_by_one(records, chunk):
    given_ = [stored(record, seq, device) for seq, (record, device) in enumerate(records, 1)]
    read = [
        item._replace(record=plain.decode_batch(data((item.seq, item.record))).records[0])
        for item in given_
    ]
    lines, alone = Lines(), Lines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fleetmark_collector.sinks.influxdb.samples.CHUNK", chunk)
        made = lines.lines(read)
        assert made == lines.lines(read), "what it remembers by now changes nothing"
    assert made == [alone.line(item) for item in read]
    for line, item, record in zip(made, read, given_, strict=True):
        if isinstance(item.record, plain.PlainTelemetry):
            assert parts_of(line) == parts_of(alone.line(record))
        else:
            assert line == alone.line(record)


def test_no_line_is_made_where_one_of_them_cannot_be(lines):
    good, bad = (
        stored(plain.decode_batch(data((1, telemetry(time_ns / 1e9)))).records[0])
        for time_ns in (1, 2)
    )
    bad = bad._replace(record=msgspec.structs.replace(bad.record, time_ns=MAX_TIME_NS + 1))
    with pytest.raises(ValueError, match="out of the store's range of times"):
        lines.lines([good, bad])
    with pytest.raises(ValueError, match="out of the store's range of times"):
        lines.line(bad)
    assert lines.lines([good]) == [lines.line(good)]


def test_what_is_remembered_of_samples_is_bounded(monkeypatch):
    monkeypatch.setattr("fleetmark_collector.sinks.influxdb.samples.MAX_OUTBOXES", 10)
    monkeypatch.setattr("fleetmark_collector.sinks.influxdb.samples.MAX_SHAPES", 10)
    lines = Lines()
    items = []
    for number in range(50):
        record = telemetry(cpu_percent_per_core=(1.5,) * number)
        (sample,) = plain.decode_batch(data((1, record))).records
        items.append(stored(sample, 1, device=f"d{number}"))
    made = lines.lines(items)
    assert len(lines._samples._known) <= 10
    assert len(lines._samples._shapes) <= 10
    assert made == [Lines().line(item) for item in items]


def test_a_trial_s_tags_are_its_cell(lines):
    item = stored(trial(quantization="Q8_0", options={"threads": 2, "context_tokens": 512}))
    assert lines.line(item).startswith(
        b"trial,fleet=lab,device=pi,campaign_id=c,backend=xllamacpp,model=smollm2,"
        b"quantization=Q8_0,workload=w,options=context_tokens\\=512\\ threads\\=2 "
    )


@pytest.mark.parametrize(
    ("item", "series"),
    [
        (load(), "load,fleet=lab,device=pi,campaign_id=c,backend=xllamacpp,model=smollm2"),
        (job(), "job,fleet=lab,device=pi,campaign_id=c"),
        (event(), "event,fleet=lab,device=pi"),
    ],
)
def test_what_a_record_does_not_have_is_no_tag_and_no_field(lines, item, series):
    line = lines.line(stored(item)).decode()
    assert line.startswith(f"{series} ")
    assert "None" not in line
    assert "null" not in line


def test_whole_numbers_floats_and_truth_values_have_the_types_that_the_schema_says(lines):
    fields = fields_of(lines.line(stored(trial(ttft_s=1, output_tokens=4, warmup=True))))
    assert ",ttft_s=1.0," in fields
    assert ",output_tokens=4i," in fields
    assert ",warmup=true,cold=false," in fields


def test_an_integer_where_a_float_belongs_does_not_change_the_field_s_type(lines):
    # Only a copy that nobody validated has one; the server would refuse all floats after it.
    line = lines.line(stored(trial().model_copy(update={"ttft_s": 1})))
    assert b",ttft_s=1," in line
    assert b"ttft_s=1i" not in line


def test_texts_are_quoted_and_a_newline_stays_in_its_field(lines):
    fields = fields_of(lines.line(stored(trial(output_text='a "b"\\\nc,d=e f'))))
    assert 'output_text="a \\"b\\"\\\\\nc,d=e f"' in fields


def test_a_failure_is_three_fields(lines):
    failure = {"code": "OUT_OF_MEMORY", "message": 'said "no"', "retryable": True}
    fields = fields_of(lines.line(stored(trial(failure=failure))))
    assert (
        'failure_code="OUT_OF_MEMORY",failure_message="said \\"no\\"",failure_retryable=true'
        in fields
    )


def test_what_has_no_field_of_its_own_is_in_rest(lines):
    fields = fields_of(lines.line(stored(load(new_field=1.5, options={"threads": 2}))))
    assert r'rest="{\"options\":{\"threads\":2},\"extra\":{\"new_field\":1.5}}"' in fields


def test_a_tag_that_cannot_be_held_exactly_is_written_harmlessly_and_kept_in_rest(lines):
    line = lines.line(stored(trial(model="a\nb\\", backend="")))
    assert b",model=a_b_," in line
    assert b"backend=" not in line.partition(b" ")[0]
    assert rb'rest="{\"tags\":{\"backend\":\"\",\"model\":\"a\\nb\\\\\"}}"' in line


def test_options_that_only_compare_equal_are_told_apart(lines):
    made = {lines.line(stored(load(options={"flag": value}))) for value in (1, 1.0, True, "1")}
    assert len(made) == 4


def test_records_of_one_series_but_another_outbox_are_told_apart(lines):
    made = [lines.line(stored(telemetry(), epoch=epoch)) for epoch in (EPOCH, OTHER_EPOCH, EPOCH)]
    assert made[0] == made[2] != made[1]


def test_a_record_s_own_unknown_fields_do_not_stay_for_the_next_one(lines):
    with_it, without = stored(event(new_field=1)), stored(event())
    assert b"new_field" in lines.line(with_it)
    assert b"new_field" not in lines.line(without)
    assert b"new_field" in lines.line(with_it)


@pytest.mark.parametrize(
    "update",
    [
        {"time_ns": MAX_TIME_NS + 1},
        {"output_text": "\ud800"},
        {"model": "\ud800"},
        {"trial_index": 2**64},
        {"options": {"a": "\ud800"}},
    ],
)
def test_what_can_never_be_written_is_refused_with_a_reason(lines, update):
    with pytest.raises(ValueError, match=r".+"):
        lines.line(stored(trial().model_copy(update=update)))
    lines.line(stored(trial()))


def test_a_device_that_begins_too_many_series_is_refused_new_ones_only():
    now = [0.0]
    lines = Lines(SeriesBudget(limit=3, window_s=60, clock=lambda: now[0]))
    kept = [stored(trial(backend=f"b{number}")) for number in range(3)]
    for item in kept:
        lines.line(item)
    with pytest.raises(ValueError, match="begun 3 combinations"):
        lines.line(stored(trial(backend="b3")))
    for item in kept:
        lines.line(item)
    lines.line(stored(trial(backend="b3"), device="other"))
    now[0] = 61
    lines.line(stored(trial(backend="b3")))


def test_a_trusted_source_may_have_any_number_of_series():
    lines = Lines(SeriesBudget(limit=None))
    for number in range(MAX_NEW_SERIES + 1):
        lines.line(stored(load(model=f"m{number}")))


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("fleetmark_collector.sinks.influxdb.lines.MAX_REMEMBERED", 10)
    lines = Lines()
    made = {number: lines.line(stored(load(model=f"m{number}"))) for number in range(50)}
    assert len(lines._heads) <= 10
    assert all(lines.line(stored(load(model=f"m{n}"))) == line for n, line in made.items())


def test_options_are_a_short_text_in_the_order_of_their_names():
    options = {"threads": 2, "temperature": 0.5, "mmap": True, "cache": "f16", "seed": None}
    text = "cache=f16 mmap=true seed=null temperature=0.5 threads=2"
    assert options_text(options) == text
    assert options_text({}) == ""


def test_options_too_long_for_a_tag_are_cut_and_still_told_apart():
    one, other = ({"a": "x" * 500 + end} for end in "12")
    assert len(options_text(one)) == MAX_OPTIONS_TAG
    assert options_text(one) != options_text(other)


@pytest.mark.parametrize("text", ["Q4_K_M", "a b", "é🟢", "a,b=c", '"', "#x"])
def test_a_tag_that_every_server_can_hold_stays_as_it_is(text):
    assert tag_text(text) == text


def test_an_observation_is_a_line_too():
    point = Point(
        "cell",
        {"fleet": "lab", "options": "threads=2 x=1", "quantization": ""},
        {"trials": 3, "latency_s": 1.0, "ok": True, "name": 'a "b"', "nothing": float("nan")},
        5,
    )
    assert point_line(point).decode() == (
        r"cell,fleet=lab,options=threads\=2\ x\=1 "
        r'trials=3i,latency_s=1.0,ok=true,name="a \"b\"" 5'
    )


def test_an_observation_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no field"):
        point_line(Point("cell", {}, {"x": float("inf")}, 5))


@pytest.mark.parametrize("kind", RECORDS)
def test_every_field_of_a_record_has_exactly_one_place(kind):
    measurement = MEASUREMENTS[kind]
    elsewhere = {"kind", "time_ns", "options", "failure"}
    own = set(RECORDS[kind].model_fields) - elsewhere
    placed = [*measurement.plain, *(tag for tag in TAGS[kind] if tag in own)]
    assert sorted(placed) == sorted(own)
    names = [*TAGS[kind], *measurement.fields]
    assert len(names) == len(set(names)), "a tag and a field, or two fields, of one name"
    assert REST in measurement.fields
    assert "time" not in names
    assert measurement.has_failure == ("failure" in RECORDS[kind].model_fields)


def test_a_field_has_the_same_type_in_every_measurement():
    # A dashboard asks several measurements in one query; InfluxDB 1 then takes one type.
    types: dict[str, set[str]] = {}
    for measurement in MEASUREMENTS.values():
        for name, kind in {**measurement.fields, **FAILURE}.items():
            types.setdefault(name, set()).add(kind)
    assert {name: kinds for name, kinds in types.items() if len(kinds) > 1} == {}


def test_a_type_without_a_rule_is_noticed():
    with pytest.raises(TypeError, match=r"teach schema\.py"):
        field_type(bytes)
    with pytest.raises(TypeError, match=r"teach schema\.py"):
        field_type(int | str)


def test_a_device_whose_clock_runs_wild_is_refused_after_so_many_weeks_and_no_other_is():
    lines, week_s = Lines(), 2**WEEK_BITS / 1e9
    for number in range(MAX_NEW_WEEKS):
        lines.line(stored(telemetry(number * week_s)))
    with pytest.raises(ValueError, match="520 weeks of time"):
        lines.lines([stored(telemetry(MAX_NEW_WEEKS * week_s + 1))])
    with pytest.raises(ValueError, match="520 weeks of time"):
        lines.line(stored(event(MAX_NEW_WEEKS * week_s + 1)))
    lines.lines([stored(telemetry(week_s)), stored(event(MAX_NEW_WEEKS * week_s), device="ec2")])
    # A copy of a store is somebody's own, old as it may be.
    trusted = Lines(SeriesBudget(limit=None))
    trusted.lines([stored(event(number * week_s), number) for number in range(MAX_NEW_WEEKS + 9)])
