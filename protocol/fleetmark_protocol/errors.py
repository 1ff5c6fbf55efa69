"""Every error fleetmark raises on purpose: a type, a stable code, and whether to try again."""

from typing import ClassVar


class FleetmarkError(Exception):
    """Base of all; `code` is stable (logs, wire, docs), `retryable` says if trying again may help.

    `hint` tells the reader what to do about it, where there is something to do.
    """

    code: ClassVar[str] = "FLEETMARK"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


class ConfigError(FleetmarkError):
    """The user's input (config, campaign file, flag) is wrong: exit code 2."""

    code = "CONFIG"


class ContractError(FleetmarkError):
    """Something on the wire is not what the contract says."""

    code = "CONTRACT"


class Interrupted(FleetmarkError):
    """The agent was stopped or restarted in the middle."""

    code = "INTERRUPTED"
    retryable = True


class Canceled(FleetmarkError):
    """Somebody asked for it to stop."""

    code = "CANCELED"


class SourceNotAllowed(FleetmarkError):
    """A job asks for a backend or a model source that the device's owner did not allow."""

    code = "SOURCE_NOT_ALLOWED"


class BackendError(FleetmarkError):
    """An engine or its model failed; the job fails, the agent goes on."""

    code = "BACKEND"


class BackendUnavailable(BackendError):
    """The engine is not installed on this device."""

    code = "BACKEND_UNAVAILABLE"


class ModelNotFound(BackendError):
    """The model is neither in the store nor where its reference points."""

    code = "MODEL_NOT_FOUND"


class ModelRejected(BackendError):
    """The model is there but cannot be used: wrong digest, truncated, wrong format."""

    code = "MODEL_REJECTED"


class ModelTooLarge(ModelRejected):
    """The model does not fit in this device's memory or in the store's quota."""

    code = "MODEL_TOO_LARGE"


class DownloadFailed(BackendError):
    """A model's download broke off; what came is kept and the next try goes on from there."""

    code = "DOWNLOAD_FAILED"
    retryable = True


class PromptTooLong(BackendError):
    """Prompt and requested output do not fit in the context."""

    code = "PROMPT_TOO_LONG"


class OutOfMemory(BackendError):
    """The worker ran out of memory or was killed for it."""

    code = "OUT_OF_MEMORY"


class BackendCrashed(BackendError):
    """The worker died without saying why."""

    code = "BACKEND_CRASHED"
    retryable = True


class BackendTimeout(BackendError):
    """A load or a trial went past its deadline and was killed."""

    code = "BACKEND_TIMEOUT"


class StoreError(FleetmarkError):
    """Something could not be written or read."""

    code = "STORE"


class StoreUnavailable(StoreError):
    """The store cannot be reached or is locked: try again."""

    code = "STORE_UNAVAILABLE"
    retryable = True


class OutboxFull(StoreUnavailable):
    """The outbox's disk is full, or nothing in it may be dropped for a new record."""

    code = "OUTBOX_FULL"


class PartialWrite(StoreError):
    """Some records were written and some can never be."""

    code = "PARTIAL_WRITE"

    def __init__(self, message: str, *, accepted: list[int], rejected: dict[int, str]) -> None:
        """Say which.

        Args:
            message: for the log.
            accepted: positions in the batch that are durably written.
            rejected: position -> why this record can never be written.
        """
        super().__init__(message)
        self.accepted = accepted
        self.rejected = rejected


def all_errors() -> dict[str, type[FleetmarkError]]:
    """Return code -> type of every error, for docs and for reading failures off the wire."""
    found: dict[str, type[FleetmarkError]] = {}
    todo: list[type[FleetmarkError]] = [FleetmarkError]
    while todo:
        kind = todo.pop()
        found[kind.code] = kind
        todo.extend(kind.__subclasses__())
    return dict(sorted(found.items()))
