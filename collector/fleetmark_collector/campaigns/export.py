"""Writes a campaign with all its records to a directory, or to one zip file, for other programs."""

import json
import os
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

from fleetmark_collector.campaigns.joblog import events_of
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.tables import CampaignRow, JobRow
from fleetmark_collector.sinks.base import Reader, Stored
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.records import Record
from fleetmark_protocol.version import __version__

FORMAT_VERSION = 1
MARGIN_NS = 60 * 1_000_000_000
"""Samples are looked for from so long before a device's first record to so long after its last."""

Open = Callable[[str], AbstractContextManager[IO[bytes]]]


def export_campaign(
    store: CampaignStore, reader: Reader, campaign_id: str, target: Path
) -> dict[str, int]:
    """Write a campaign; return how many lines each file of records has.

    Args:
        store: has the campaign.
        reader: has its records.
        campaign_id: which.
        target: a directory that is not there yet, or a file that ends in `.zip`.

    Raises:
        ConfigError: there is no such campaign, the target is there, or it cannot be written.
        StoreError: state file or store cannot be read.
    """
    campaign = store.campaign(campaign_id)
    if target.exists():
        raise ConfigError(f"{target} is there already", hint="name another directory or file")
    # Under another name until it is whole: half an export must not look like one.
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _archive(part, target.stem) if target.suffix == ".zip" else _directory(part) as opened:
            counts = _write(store, reader, campaign, opened)
        part.rename(target)
    except OSError as error:
        raise ConfigError(f"{target}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True) if part.is_file() else shutil.rmtree(part, ignore_errors=True)
    return counts


@contextmanager
def _directory(part: Path) -> Iterator[Open]:
    part.mkdir()
    yield lambda name: (part / name).open("wb")


@contextmanager
def _archive(part: Path, root: str) -> Iterator[Open]:
    with zipfile.ZipFile(part, "x", zipfile.ZIP_DEFLATED) as archive:
        # Sizes are not known beforehand, and telemetry may be large.
        yield lambda name: archive.open(f"{root}/{name}", "w", force_zip64=True)


def _write(
    store: CampaignStore, reader: Reader, campaign: CampaignRow, opened: Open
) -> dict[str, int]:
    campaign_id = campaign.campaign_id
    jobs = store.jobs(campaign_id)
    trials, loads = reader.trials(campaign_id), reader.loads(campaign_id)
    states = reader.job_records(campaign_id)
    ids = {job.job_id for job in jobs}
    known: list[Stored[Any]] = [*trials, *loads, *states]
    events = events_of(reader, ids, known, campaign.created_ns)
    lines: dict[str, Iterable[object]] = {
        "jobs.jsonl": (_job(store, job) for job in jobs),
        "moves.jsonl": (_plain(move.__dict__) for move in store.moves(campaign_id)),
        "trials.jsonl": map(_record, trials),
        "loads.jsonl": map(_record, loads),
        "job_records.jsonl": map(_record, states),
        "events.jsonl": map(_record, events),
        "telemetry.jsonl": _telemetry(reader, ids, known),
        "late_reports.jsonl": (_plain(one.__dict__) for one in store.late_reports(campaign_id)),
    }
    counts = {}
    for name, objects in lines.items():
        with opened(name) as file:
            counts[name] = 0
            for one in objects:
                file.write(json.dumps(one, ensure_ascii=False).encode() + b"\n")
                counts[name] += 1
    with opened("campaign.yaml") as file:
        file.write(store.file_text(campaign_id).encode())
    about = {
        "format_version": FORMAT_VERSION,
        "fleetmark_version": __version__,
        **_plain(campaign.__dict__),
        "lines": counts,
    }
    with opened("campaign.json") as file:
        file.write(json.dumps(about, ensure_ascii=False, indent=2).encode() + b"\n")
    return counts


def _job(store: CampaignStore, job: JobRow) -> dict[str, Any]:
    return {**_plain(job.__dict__), "spec": store.spec(job.job_id).model_dump()}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return a row as plain data; models within it become mappings."""
    return {
        key: value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value
        for key, value in values.items()
    }


def _record(item: Stored[Record]) -> dict[str, Any]:
    return {
        "fleet": item.fleet,
        "device": item.device,
        "epoch": item.epoch,
        "seq": item.seq,
        "record": item.record.model_dump(mode="json", exclude_none=True),
    }


def _telemetry(
    reader: Reader, ids: set[str], known: Sequence[Stored[Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the samples that were taken during one of the jobs, device by device."""
    times: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for item in known:
        times[item.fleet, item.device].append(item.record.time_ns)
    for (fleet, device), seen in sorted(times.items()):
        start, end = max(0, min(seen) - MARGIN_NS), max(seen) + MARGIN_NS
        for sample in reader.telemetry(fleet, device, start, end):
            if sample.job_id in ids:
                record = sample.model_dump(mode="json", exclude_none=True)
                yield {"fleet": fleet, "device": device, "record": record}
