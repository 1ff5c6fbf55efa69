"""Words about a campaign that pictures and lines share."""

from fleetmark_collector.campaigns.view import View

SHOWN_FAILURES = 5
NO_COLLECTOR = "no collector is running: nothing moves until `fleetmark collect` is started"


def duration_text(seconds: float | None) -> str:
    """Return a time to wait as people read it; `?` when unknown."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def failure_lines(view: View) -> list[str]:
    """Return a line for each job that ended other than well, newest first, a few at most."""
    lines = []
    for job in view.failed[:SHOWN_FAILURES]:
        # One line each: what the device said may have several, and odd characters.
        said = f": {job.failure.code}: {job.failure.message}" if job.failure else ""
        text = f"{job.device} {job.cell}: {job.state}{said}"
        lines.append("".join(char if char.isprintable() else " " for char in text)[:300])
    if len(view.failed) > SHOWN_FAILURES:
        lines.append(f"and {len(view.failed) - SHOWN_FAILURES} more")
    return lines


def share(view: View) -> float:
    """Return which share of a campaign's trials needs no more waiting for."""
    return view.trials_settled / view.trials_planned if view.trials_planned else 1.0


def progress_text(view: View) -> str:
    """Return how far a campaign is, and how long it goes on, where that can be told."""
    text = f"{share(view):.0%}, {view.trials_stored} of {view.trials_planned} trials"
    return text if view.eta_s is None else f"{text}, about {duration_text(view.eta_s)} left"
