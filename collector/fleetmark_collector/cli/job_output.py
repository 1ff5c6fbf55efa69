"""What `fleetmark job` prints, for people and for programs."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from fleetmark_collector.cli.campaign_output import say
from fleetmark_collector.cli.common import harmless_json

if TYPE_CHECKING:
    from rich.console import Console

    from fleetmark_collector.campaigns.joblog import Entry
    from fleetmark_collector.campaigns.tables import JobRow
    from fleetmark_protocol.messages import JobSpec
    from fleetmark_protocol.records import TrialRecord

SHOWN_TRIALS = 30
NS = 1_000_000_000


def print_job(
    job: "JobRow",
    spec: "JobSpec",
    log: "Sequence[Entry]",
    trials: "Sequence[TrialRecord]",
    out: "Console",
) -> None:
    """Print a job in full; of many trials the last ones, `--json` has all."""
    say(out, f"{job.job_id}  {job.state}" + (f" (attempt {job.attempt})" if job.attempt else ""))
    if job.failure is not None:
        say(out, f"  failure: {_plain(f'{job.failure.code}: {job.failure.message}')}")
        say(out, f"  worth another try: {'yes' if job.failure.retryable else 'no'}")
    for name, value in _facts(job, spec):
        say(out, f"  {name}: {value}")
    say(out, "What happened")
    for entry in log:
        say(out, f"  {entry_line(entry)}")
    ids = len({trial.trial_id for trial in trials})
    say(out, f"Trials: {ids} of {job.trials_planned} in the store")
    if trials:
        verdicts = Counter(trial.verdict for trial in trials)
        say(out, "  " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
        _print_trials(trials[-SHOWN_TRIALS:], out)
        if len(trials) > SHOWN_TRIALS:
            say(out, f"  ({len(trials) - SHOWN_TRIALS} earlier ones are in --json)")


def _facts(job: "JobRow", spec: "JobSpec") -> list[tuple[str, str]]:
    model = spec.model
    facts = [
        ("campaign", job.campaign_id),
        ("device", f"{job.device} in {job.fleet}"),
        ("backend", spec.backend),
        ("model", f"{model.name} {model.quantization or 'as is'} from {model.ref}"),
        ("options", " ".join(f"{name}={value}" for name, value in spec.labels.items()) or "-"),
    ]
    facts += [
        (
            f"workload {one.name}",
            f"{one.kind}, {len(one.prompts)} prompt(s), {one.output_tokens} output tokens, "
            f"{one.warmup} warm-up(s), {one.repetitions} repetition(s)",
        )
        for one in spec.workloads
    ]
    limits = spec.timeouts
    facts.append(
        (
            "time limits",
            f"load {limits.load_s:g} s, trial {limits.trial_s:g} s, job {limits.job_s:g} s",
        )
    )
    if job.retry_of is not None:
        facts.append(("retry of", job.retry_of))
    if job.superseded_by is not None:
        facts.append(("run again as", job.superseded_by))
    if job.not_before_ns is not None:
        facts.append(("not before", _moment(job.not_before_ns)))
    return facts


def _print_trials(trials: "Sequence[TrialRecord]", out: "Console") -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for title in ("  trial", "attempt", "verdict"):
        table.add_column(title, no_wrap=True)
    table.add_column("latency s", justify="right", no_wrap=True)
    table.add_column("tokens/s", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for trial in trials:
        failed = f"{trial.failure.code}: {trial.failure.message}" if trial.failure else ""
        why = "; ".join(part for part in (failed, ", ".join(trial.verdict_reasons)) if part)
        latency_s = trial.latency_s if trial.latency_s is not None else trial.latency_cold_s
        table.add_row(
            "  " + trial.trial_id.removeprefix(f"{trial.job_id}."),
            str(trial.attempt),
            str(trial.verdict),
            "-" if latency_s is None else f"{latency_s:.3f}",
            "-" if trial.decode_tps is None else f"{trial.decode_tps:.1f}",
            escape(_plain(why)),
        )
    out.print(table)


def entry_line(entry: "Entry") -> str:
    """Return what happened in one line, in local time."""
    attempt = f" attempt {entry.attempt}" if entry.attempt else ""
    late = " (too late: it changed nothing)" if entry.late else ""
    text = f": {entry.text}" if entry.text else ""
    line = f"{_moment(entry.time_ns)}  {entry.source:6}  {entry.what}{attempt}{late}{text}"
    return _plain(line)


def _moment(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns / NS).astimezone():%Y-%m-%d %H:%M:%S}"


def entry_json_line(entry: "Entry") -> str:
    """Return what happened as one line of JSON."""
    return harmless_json(json.dumps(asdict(entry), ensure_ascii=False))


def job_json(
    job: "JobRow",
    spec: "JobSpec",
    log: "Sequence[Entry]",
    trials: "Sequence[TrialRecord]",
) -> dict[str, object]:
    """Return a job in full, for programs."""
    return {
        **{name: value for name, value in job.__dict__.items() if name != "failure"},
        "failure": job.failure.model_dump(exclude_none=True) if job.failure else None,
        "spec": spec.model_dump(),
        "log": [asdict(entry) for entry in log],
        "trials": [trial.model_dump(mode="json", exclude_none=True) for trial in trials],
    }


def _plain(text: str) -> str:
    """Return a device's words in one line that cannot draw on the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
