"""Keeps what is wrong with one campaign or schedule from the others, and says it once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from fleetmark_protocol import logs
from fleetmark_protocol.errors import FleetmarkError, StoreError, StoreUnavailable

_MOST = 1000
"""Troubles that are remembered as told."""


class Apart:
    """Used by one thread."""

    def __init__(self, component: str) -> None:
        """Nothing is told yet.

        Args:
            component: in whose name.
        """
        self._log = logs.get(component)
        self._told: set[str] = set()

    @contextmanager
    def keep(self, what: str) -> Iterator[None]:
        """Leave the rest of a block out where something goes wrong in it.

        Args:
            what: whose block it is.

        Raises:
            StoreUnavailable: nothing can be read now; that is no trouble of one alone.
            FleetmarkError: any other that is no trouble of what is stored.
        """
        try:
            yield
        except StoreUnavailable:
            raise
        except StoreError as error:
            self._tell(self._log.error, error.message, what=what, hint=error.hint)
        except FleetmarkError:
            raise
        except Exception as error:  # noqa: BLE001 - a number that some step cannot take, say
            reason = f"{what}: {type(error).__name__}: {error}"
            hint = "this is a mistake of ours: report it with the log, and cancel or delete it"
            self._tell(self._log.exception, reason, what=what, hint=hint)

    def _tell(self, tell: Callable[..., None], reason: str, **about: str | None) -> None:
        if reason in self._told:
            return
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told.add(reason)
        tell("left_out", **about, reason=reason, others="go on without it")


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn what a row holds and this version cannot read into an error that names it.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        yield
    except ValueError as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise StoreError(
            f"{what}: this version cannot read what is stored of it: {reason}",
            hint="use the version that wrote it",
        ) from error
