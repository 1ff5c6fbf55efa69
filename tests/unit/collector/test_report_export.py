import csv
import json
import os
from pathlib import Path

import pytest

from fakes.fake_campaign import CAMPAIGN, FakeJob, failure, store, usual_jobs
from fleetmark_collector.report.build import build_report
from fleetmark_collector.report.export import write_csv, write_json, write_text
from fleetmark_collector.report.jsonform import JSON_SCHEMA_VERSION
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.records import TrialRecord


def build(tmp_path, *jobs, **how):
    reader = store(tmp_path, *jobs)
    report = build_report(reader, CAMPAIGN, **how)
    reader.close()
    return report


def rows(tmp_path, *jobs):
    file = tmp_path / "trials.csv"
    write_csv(build(tmp_path, *jobs), file)
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_csv_has_one_row_per_trial_with_every_field_of_the_record(tmp_path):
    job = FakeJob().usual(repetitions=2)
    found = rows(tmp_path, job)
    assert len(found) == sum(isinstance(record, TrialRecord) for record in job.records)
    fields = set(TrialRecord.model_fields) - {"kind", "options", "failure"}
    assert fields | {"device", "seq", "options.threads", "failure.code"} <= found[0].keys()
    assert float(found[1]["latency_s"]) == next(
        r.latency_s for r in job.records if getattr(r, "trial_id", "") == found[1]["trial_id"]
    )


def test_csv_says_which_trials_are_in_the_figures(tmp_path):
    job = FakeJob().trial("single", warmup=True).trial("single", 0).trial("single", 0, attempt=2)
    job.trial("single", 1, verdict="INVALID").trial("single", 2, failure=failure())
    found = rows(tmp_path, job)
    assert [(row["counted"], row["superseded"]) for row in found].count(("true", "false")) == 1
    assert [row["attempt"] for row in found if row["superseded"] == "true"] == ["1"]
    assert next(r["failure.code"] for r in found if r["repetition"] == "2") == "OUT_OF_MEMORY"


def test_csv_keeps_fields_that_this_version_does_not_know(tmp_path):
    job = FakeJob().trial("single", 0, gpu_c=61.5).trial("single", 1)
    assert [row["gpu_c"] for row in rows(tmp_path, job)] == ["61.5", ""]


def test_a_field_that_a_device_made_up_never_covers_one_of_ours(tmp_path):
    found = rows(tmp_path, FakeJob().trial("single", 0, device="other", counted="yes"))
    assert (found[0]["device"], found[0]["counted"]) == ("pi-1", "true")


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-2", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\uff1d1"]
)
def test_no_text_from_a_device_is_a_formula_in_a_spreadsheet(tmp_path, text):
    (row,) = rows(tmp_path, FakeJob().trial("single", 0, output_text=text))
    assert row["output_text"] == f"'{text}"


def test_neither_an_options_name_nor_its_value_is_a_formula(tmp_path):
    (row,) = rows(tmp_path, FakeJob(options={"=x": "=y"}).trial())
    assert row["options.=x"] == "'=y"


def test_negative_numbers_stay_numbers_in_csv(tmp_path):
    (row,) = rows(tmp_path, FakeJob().trial("single", 0, temperature_c_max=-5.5))
    assert row["temperature_c_max"] == "-5.5"


def test_texts_with_line_ends_and_quotes_come_back_whole(tmp_path):
    text = 'a "quoted",\r\nsecond\nline'
    (row,) = rows(tmp_path, FakeJob().trial("single", 0, output_text=text))
    assert row["output_text"] == text


def test_json_has_figures_with_intervals_and_comparisons(tmp_path):
    file = tmp_path / "report.json"
    report = build(tmp_path, *usual_jobs(), machine_ids={("lab", "pi-1"): "m"})
    write_json(report, file)
    found = json.loads(file.read_text("utf-8"))
    assert found["schema_version"] == JSON_SCHEMA_VERSION
    assert found["baseline"] == report.baseline
    assert found["units"]["latency_s"] == "s"
    cell = next(
        c for c in found["cells"] if (c["quantization"], c["workload"]) == ("Q4_0", "multi")
    )
    assert (
        cell["figures"]["session_latency_s"]["low"] < cell["figures"]["session_latency_s"]["high"]
    )
    assert cell["versus_baseline"]["metrics"]["session_latency_s"]["outcome"] == "better"
    assert cell["trials"] == {
        "valid": 24, "suspect": 0, "invalid": 0, "warmup": 1, "superseded": 0, "planned": None,
    }  # fmt: skip
    assert found["machines"] == [{"fleet": "lab", "device": "pi-1", "machine_id": "m"}]


def test_json_of_a_campaign_where_nothing_worked_is_still_json(tmp_path):
    file = tmp_path / "report.json"
    write_json(build(tmp_path, FakeJob().trial("single", verdict="INVALID")), file)
    (cell,) = json.loads(file.read_text("utf-8"))["cells"]
    assert cell["problem"] == "all 1 trials left out: no reason given (1)"
    assert cell["versus_baseline"] is None
    assert "latency_s" not in cell["figures"]


@pytest.mark.parametrize("name", ["no/such/dir/x.csv", ""])
def test_a_file_that_cannot_be_written_is_the_users_mistake(tmp_path, name):
    with pytest.raises(ConfigError, match=r"cannot be written|is a directory"):
        write_text(tmp_path / name, "x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_replaced_whole_with_usual_permissions(tmp_path):
    file = tmp_path / "report.json"
    file.write_text("much longer than what comes")
    write_text(file, "new")
    umask = os.umask(0)
    os.umask(umask)
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask
    assert [one.name for one in tmp_path.iterdir()] == ["report.json"]


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path):
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_dash_is_standard_output(capsys):
    write_text(Path("-"), "hello\n")
    assert capsys.readouterr().out == "hello\n"
