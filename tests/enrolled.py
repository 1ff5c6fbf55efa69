"""What tests of identities share: a clock that they move, usual wishes, a look at what is there."""

from datetime import UTC, datetime, timedelta

from fleetmark_collector.enrolment import brokerusers
from fleetmark_collector.enrolment.enrolling import Wish

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
BY_PASSWORD = Wish(kind="password", host="centre.example")
BY_CERTIFICATE = Wish(kind="certificate", host="centre.example")


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now

    def pass_days(self, days):
        self.now += timedelta(days=days)


def users(enrolment):
    """Return who has a password at the broker, but for the collector."""
    return set(brokerusers.users(enrolment.keep)) - {brokerusers.COLLECTOR}


def tree(directory):
    """Return each file with what is in it."""
    return {
        file: file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file() and file.name != ".lock"
    }
