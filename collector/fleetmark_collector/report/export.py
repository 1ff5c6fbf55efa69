"""Writes a report for programs: trials as CSV, cells as JSON; files appear whole or not at all."""

import csv
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fleetmark_collector.report.jsonform import as_json
from fleetmark_collector.report.judged import Trial
from fleetmark_collector.report.model import Report
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.records import TrialRecord

STDOUT = Path("-")

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What makes a spreadsheet take a text for a formula, full-width forms included."""


def write_csv(report: Report, path: Path) -> None:
    """Write one row per trial with all its fields, those that no figure uses included.

    `counted` says whether a trial is in the figures, `superseded` whether a later attempt measured
    it again. Lists are joined with spaces; `options.*`, `failure.*` are columns of their own.

    Args:
        report: what to write.
        path: `-` for standard output.

    Raises:
        ConfigError: the file cannot be written.
    """
    rows = list(_rows(report))
    # Newer agents may send fields that only some trials have.
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    # The standard's line end; with another, older Pythons do not quote a lone carriage return.
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([_harmless(name) for name in columns])
    writer.writerows([[_harmless(row.get(name)) for name in columns] for row in rows])
    write_text(path, text.getvalue())


def write_json(report: Report, path: Path) -> None:
    """Write cells, figures and comparisons; numbers in the units of the metrics' definitions.

    Args:
        report: what to write.
        path: `-` for standard output.

    Raises:
        ConfigError: the file cannot be written.
    """
    text = json.dumps(as_json(report), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; `-` is standard output.

    Raises:
        ConfigError: it cannot be written.
    """
    if path == STDOUT:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    if path.is_dir():
        raise ConfigError(f"{path}: is a directory", hint="name a file in it")
    temporary: Path | None = None
    try:
        # A symbolic link is followed: its target is replaced, not the link. The name is random,
        # so that two reports written at once do not mix.
        target = path.resolve()
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error


def _rows(report: Report) -> Iterator[dict[str, object]]:
    for cell in report.cells:
        counted = {id(trial) for trial in cell.cell.measured}
        for superseded, trials in ((False, cell.cell.trials), (True, cell.cell.superseded)):
            for trial in trials:
                yield _row(trial, counted=id(trial) in counted, superseded=superseded)


def _row(trial: Trial, *, counted: bool, superseded: bool) -> dict[str, object]:
    record = trial.record
    row: dict[str, object] = {
        "fleet": trial.fleet,
        "device": trial.device,
        "epoch": trial.epoch,
        "seq": trial.seq,
        "counted": counted,
        "superseded": superseded,
    }
    extra = record.__pydantic_extra__ or {}
    for name in TrialRecord.model_fields:
        value = getattr(record, name)
        if name == "options":
            row |= {f"options.{key}": option for key, option in sorted(value.items())}
        elif name == "failure":
            row |= {
                "failure.code": value.code if value else None,
                "failure.message": value.message if value else None,
                "failure.retryable": value.retryable if value else None,
            }
        elif name != "kind":
            row[name] = " ".join(map(str, value)) if isinstance(value, tuple) else value
    # Never over a field of ours: what a record calls itself is its device's word.
    return row | {name: value for name, value in extra.items() if name not in row}


def _harmless(value: object) -> object:
    """Keep a text from a device from being run as a formula; numbers stay as they are."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value
