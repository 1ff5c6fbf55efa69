"""What `fleetmark doctor` says of identities: how many there are, and which end soon."""

from collections.abc import Iterator
from datetime import datetime

from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.enrolment.authority import now_utc
from fleetmark_collector.enrolment.directories import default_directory
from fleetmark_collector.enrolment.enrolling import Enrolment
from fleetmark_collector.findings import Finding
from fleetmark_protocol.errors import ConfigError

NAME = "identities"


def examine(settings: CollectorSettings, now: datetime | None = None) -> Iterator[Finding]:
    """Yield a finding where somebody has been enrolled and we may look."""
    now = now or now_utc()
    directory = default_directory(settings.data_dir)
    if not directory.exists():
        return
    try:
        known = Enrolment.open(settings.data_dir, directory).identities()
    except ConfigError as error:
        if isinstance(error.__cause__, PermissionError):
            yield Finding(NAME, "ok", "only root may look: `fleetmark identities`")
            return
        raise
    ending = [one for one in known if one.state(now) != "ok"]
    if not ending:
        yield Finding(NAME, "ok", f"{len(known)} enrolled")
        return
    names = ", ".join(f"{one.device} ({one.ends:%Y-%m-%d})" for one in ending[:5])
    more = f" and {len(ending) - 5} more" if len(ending) > 5 else ""
    yield Finding(
        NAME,
        "warn",
        f"{len(known)} enrolled; ended or ending within 30 days: {names}{more}",
        "`fleetmark enroll --renew DEVICE`, and copy the new kit; `fleetmark revoke` who is gone",
    )
