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


def failure_lines(view: View, most: int = SHOWN_FAILURES) -> list[str]:
    """Return a line for each job that ended other than well, newest first, a few at most."""
    lines = []
    for job in view.failed[:most]:
        # One line each: what the device said may have several, and odd characters.
        said = f": {job.failure.code}: {job.failure.message}" if job.failure else ""
        text = f"{job.device} {job.cell}: {job.state}{said}"
        lines.append("".join(char if char.isprintable() else " " for char in text)[:300])
    if len(view.failed) > most:
        lines.append(f"and {len(view.failed) - most} more failures")
    return lines


def share(view: View) -> float:
    """Return which share of a campaign's trials needs no more waiting for."""
    if not view.trials_planned:
        # Without a trial nothing is left to do once it has ended; before, devices may yet join.
        return 1.0 if view.campaign.state.terminal else 0.0
    return view.trials_settled / view.trials_planned


def progress_text(view: View) -> str:
    """Return how far a campaign is, and how long it goes on, where that can be told."""
    if not view.trials_planned and not view.campaign.state.terminal:
        return "no trials yet"
    text = f"{share(view):.0%}, {view.trials_stored} of {view.trials_planned} trials"
    return text if view.eta_s is None else f"{text}, about {duration_text(view.eta_s)} left"
