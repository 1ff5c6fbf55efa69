"""What `fleetmark simulate` shows: a line that lives, and the account at the end."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleetmark_collector.cli.simulate_processes import Report, percentile

LINE_S = 10.0
"""Between lines where nobody looks at a terminal."""

BEHIND_S = 0.5
"""A simulation that is so far behind its own clock shows its own limits, not the broker's."""


@contextmanager
def shown(devices: int) -> Iterator[Callable[[Report], None]]:
    """Give what shows a report: on a terminal in place, else a line now and then."""
    from rich.console import Console

    # Standard output is for the summary.
    screen = Console(stderr=True)
    if screen.is_terminal:
        with screen.status("starting") as status:
            yield lambda report: status.update(progress_line(report, devices))
        return
    last_s, phase = 0.0, ""

    def tell(report: Report) -> None:
        nonlocal last_s, phase
        if report["phase"] != phase or time.monotonic() - last_s >= LINE_S:
            last_s, phase = time.monotonic(), report["phase"]
            screen.print(progress_line(report, devices), highlight=False, soft_wrap=True)

    yield tell


def progress_line(report: Mapping[str, Any], devices: int) -> str:
    """Return where the simulation stands, in a line."""
    if report["phase"] == "prepare" or report["devices"] < devices:
        return f"preparing: {report['devices']:,} of {devices:,} outboxes"
    oldest = "" if report["oldest_s"] is None else f", oldest {report['oldest_s']:.1f} s"
    parts = [
        f"{report['elapsed_s']:.0f} s",
        f"{report['connected']:,} of {devices:,} connected",
        f"{report['made']:,} made",
        f"{report['sent']:,} sent",
        f"{report['acked']:,} acknowledged",
        f"{report['backlog']:,} waiting{oldest}",
        f"{report['resent']:,} sent again",
    ]
    optional = {
        "thinned": f"{report['thinned']:,} thinned",
        "refused": f"{report['refused']:,} refused by a full disk",
        "jobs": f"{report['trials']:,} trials, {report['jobs']:,} jobs done",
    }
    parts += [text for name, text in optional.items() if report[name]]
    if (report["late_s"] or 0) > BEHIND_S:
        parts.append(f"the simulation itself is {report['late_s']:.1f} s behind")
    if report["phase"] == "drain":
        parts.append("waiting for what is not acknowledged")
    return ", ".join(parts)


def summary(
    total: Mapping[str, Any], asked: Mapping[str, object], state_dir: Path | None
) -> dict[str, object]:
    """Return the account: every record made is acknowledged, left, or thinned.

    Args:
        total: the last reports of all processes, added up.
        asked: what the user asked for.
        state_dir: where outboxes are kept; None if they are gone.
    """
    delays, longest_s = total["delays"], total["delay_max_s"]

    def delay_s(percent: float) -> float | None:
        # A class ends at or after the longest that is in it.
        found = percentile(delays, percent)
        return None if found is None else round(min(found, longest_s), 3)

    return {
        **asked,
        "devices": total["devices"],
        "connected": total["connected"],
        "connections": total["connects"],
        "elapsed_s": round(total["elapsed_s"], 3),
        "samples": total["samples"],
        "made": total["made"],
        "carried": total["carried"],
        "acknowledged": total["acked"],
        "left": total["backlog"],
        "thinned": total["thinned"],
        "unaccounted": total["unaccounted"],
        "refused": total["refused"],
        "skipped": total["skipped"],
        "sent": total["sent"],
        "resent": total["resent"],
        "trials": total["trials"],
        "jobs": total["jobs"],
        "delay_p50_s": delay_s(50),
        "delay_p99_s": delay_s(99),
        "delay_max_s": round(longest_s, 3) if delays else None,
        "late_max_s": round(total["late_s"], 3),
        "cpu_s": round(total["cpu_s"], 2),
        "rss_bytes": total["rss_bytes"],
        "state_dir": None if state_dir is None else str(state_dir),
    }


def summary_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the account as people read it."""
    gone = "" if found["state_dir"] or not found["left"] else ", gone with their directory"
    rows = {
        "devices": f"{found['devices']:,}, {found['connected']:,} connected at the end, "
        f"{found['connections']:,} connections in all",
        "made": f"{found['made']:,} records, {found['samples']:,} of them samples"
        + (f", and {found['carried']:,} left by an earlier run" if found["carried"] else ""),
        "acknowledged": f"{found['acknowledged']:,}",
        "left in outboxes": f"{found['left']:,}{gone}",
        "thinned": f"{found['thinned']:,}",
        "unaccounted for": f"{found['unaccounted']:,}"
        + ("" if found["unaccounted"] else ": nothing was lost on this side"),
        "sent": f"{found['sent']:,}, {found['resent']:,} of them again",
    }
    if found["trials"] or found["jobs"]:
        rows["made-up results"] = f"{found['trials']:,} trials, {found['jobs']:,} jobs ended"
    if found["delay_p50_s"] is not None:
        rows["to acknowledgement"] = (
            f"p50 {found['delay_p50_s']:.2f} s, p99 {found['delay_p99_s']:.2f} s, "
            f"max {found['delay_max_s']:.2f} s"
        )
    rows["this simulation"] = (
        f"{found['elapsed_s']:.1f} s, {found['cpu_s']:.1f} s of CPU, "
        f"{found['rss_bytes'] / 2**20:,.0f} MiB, at most {found['late_max_s']:.2f} s behind"
    )
    for name, text in rows.items():
        yield f"{name:<19} {text}"
    if found["skipped"]:
        yield (
            f"warning: {found['skipped']:,} samples were not made: this machine is too slow or too "
            "busy for so many devices, or needs more --processes"
        )
    if found["refused"]:
        yield f"warning: {found['refused']:,} samples were refused: the outboxes' disk was full"
    if found["sent"] and not found["acknowledged"]:
        yield (
            "warning: nothing was acknowledged; does a collector run on this broker, and may this "
            f"user write to fleetmark/v1/{found['fleet']}/+/data and read .../ack?"
        )
