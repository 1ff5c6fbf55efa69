"""Every error fleetmark raises on purpose: a type, a stable code, and whether to try again."""

from typing import ClassVar


class FleetmarkError(Exception):
    """Something went wrong that has no name of its own; the base of all other errors.

    `code` is stable (logs, wire, docs), `retryable` says if trying again may help,
    `remedy` is what a reader can do about an error of this type; `hint` what about this very one.
    """

    code: ClassVar[str] = "FLEETMARK"
    retryable: ClassVar[bool] = False
    remedy: ClassVar[str] = "Read the message; if it says nothing, report it with the log."

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


class ConfigError(FleetmarkError):
    """The user's input (config, campaign file, flag) is wrong: exit code 2."""

    code = "CONFIG"
    remedy = "Mend the file, variable or flag that the message names."


class ContractError(FleetmarkError):
    """Something on the wire is not what the contract says."""

    code = "CONTRACT"
    remedy = "Compare the versions of agent and collector; look into the dead-letter file."


class VersionMismatch(FleetmarkError):
    """Agent and collector are of versions that do not work together."""

    code = "VERSION_MISMATCH"
    remedy = "Upgrade the older of the two, as the message says; nothing is lost meanwhile."


class Interrupted(FleetmarkError):
    """The agent was stopped or restarted in the middle."""

    code = "INTERRUPTED"
    retryable = True
    remedy = "Nothing: the job goes on by itself where it may; else run it again."


class Canceled(FleetmarkError):
    """Somebody asked for it to stop."""

    code = "CANCELED"
    remedy = "Nothing: somebody wanted it so."


class SourceNotAllowed(FleetmarkError):
    """A job asks for a backend or a model source that the device's owner did not allow."""

    code = "SOURCE_NOT_ALLOWED"
    remedy = "Let the device's owner allow it in the agent's settings, or ask for another."


class JobTooLarge(FleetmarkError):
    """A job asks for more than this device, its owner or the agent lets one job take."""

    code = "JOB_TOO_LARGE"
    remedy = "Ask for less, or let the device's owner raise the limit that the message names."


class BackendError(FleetmarkError):
    """An engine or its model failed; the job fails, the agent goes on."""

    code = "BACKEND"
    remedy = "Read the message: it is the engine's own."


class BackendUnavailable(BackendError):
    """The engine is not installed on this device."""

    code = "BACKEND_UNAVAILABLE"
    remedy = "Install the engine on the device; `fleetmark-agent doctor` says how."


class ModelNotFound(BackendError):
    """The model is neither in the store nor where its reference points."""

    code = "MODEL_NOT_FOUND"
    remedy = "Check the reference for typing mistakes, or put the file into the model store."


class ModelRejected(BackendError):
    """The model is there but cannot be used: wrong digest, truncated, wrong format."""

    code = "MODEL_REJECTED"
    remedy = "Fetch the file again, correct its SHA-256, or take one the engine can read."


class ModelTooLarge(ModelRejected):
    """The model does not fit in this device's memory or in the store's quota."""

    code = "MODEL_TOO_LARGE"
    remedy = "Take a smaller model or quantization, free memory, or raise the quota."


class DownloadFailed(BackendError):
    """A model's download broke off; what came is kept and the next try goes on from there."""

    code = "DOWNLOAD_FAILED"
    retryable = True
    remedy = "Check the device's way to the network; run the job again."


class PromptTooLong(BackendError):
    """Prompt and requested output do not fit in the context."""

    code = "PROMPT_TOO_LONG"
    remedy = "Raise `context_tokens`, shorten the prompt, or ask for fewer output tokens."


class OptionNotTaken(BackendError):
    """A job asks for an option that the backend would not honour."""

    code = "OPTION_NOT_TAKEN"
    remedy = "Leave the option out for this backend, or take a backend that honours it."


class OutOfMemory(BackendError):
    """The worker ran out of memory or was killed for it."""

    code = "OUT_OF_MEMORY"
    remedy = "Take a smaller model, quantization or context; stop what else needs memory."


class BackendCrashed(BackendError):
    """The worker died without saying why."""

    code = "BACKEND_CRASHED"
    retryable = True
    remedy = "Read the engine's last words in the message; try another version of it."


class BackendTimeout(BackendError):
    """A load or a trial went past its deadline and was killed."""

    code = "BACKEND_TIMEOUT"
    remedy = "Raise the campaign's timeouts, or ask for less."


class JobTimedOut(BackendTimeout):
    """The job's own deadline passed, not one trial's."""

    code = "JOB_TIMED_OUT"
    remedy = "Raise the campaign's `timeouts.job_s`, or ask for fewer trials."


class DeviceSilent(FleetmarkError):
    """The device did not answer in time, and the centre gave its job up."""

    code = "DEVICE_SILENT"
    retryable = True
    remedy = (
        "See whether the device has power and network;"
        " `fleetmark devices` says when it was last heard."
    )


class CampaignTimedOut(FleetmarkError):
    """The campaign's own deadline passed before the job was done."""

    code = "CAMPAIGN_TIMED_OUT"
    remedy = "Raise the campaign's own time limit, or ask for less."


class LeadershipLost(FleetmarkError):
    """Another collector has taken over; this one may change nothing any more."""

    code = "LEADERSHIP_LOST"
    remedy = (
        "Nothing: it waits as standby. If it comes again and again, see what stops this process"
        " for so long: a suspended machine, a full disk, no memory."
    )


class CampaignAborted(FleetmarkError):
    """The campaign stopped by itself: it went wrong on more devices than its rules let it."""

    code = "CAMPAIGN_ABORTED"
    remedy = "Look at what the failed jobs say; mend that, and retry the campaign."


class BrokerFailed(FleetmarkError):
    """The broker could not be started, or ended by itself."""

    code = "BROKER"
    remedy = "Read the broker's last words; `fleetmark doctor` looks for what it needs."


class ProcessFailed(FleetmarkError):
    """A process that belongs to a demo ended before its time."""

    code = "PROCESS"
    remedy = "Read its log file, which the message names."


class GrafanaFailed(FleetmarkError):
    """Grafana cannot be reached, or did not take what was pushed to it."""

    code = "GRAFANA"
    remedy = "Read the message: it is Grafana's own. What was pushed before it stays; push again."


class StoreError(FleetmarkError):
    """Something could not be written or read."""

    code = "STORE"
    remedy = "Read the message: it is the store's own."


class StoreUnavailable(StoreError):
    """The store cannot be reached or is locked: try again."""

    code = "STORE_UNAVAILABLE"
    retryable = True
    remedy = "See whether disk or database are there; nothing is lost meanwhile."

    def __init__(
        self, message: str, *, hint: str | None = None, retry_after_s: float | None = None
    ) -> None:
        """Say why.

        Args:
            message: for the log.
            hint: what to do about it.
            retry_after_s: how long the store itself asks to be left alone, where it does.
        """
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class OutboxFull(StoreUnavailable):
    """The outbox's disk is full, or nothing in it may be dropped for a new record."""

    code = "OUTBOX_FULL"
    remedy = "Free disk on the device, or bring its collector back; raise `outbox.max_bytes`."


class PartialWrite(StoreError):
    """Some records were written, and some can never be or could not be now."""

    code = "PARTIAL_WRITE"
    remedy = "Look into the dead-letter file for what the store refused."

    def __init__(self, message: str, *, accepted: list[int], rejected: dict[int, str]) -> None:
        """Say which; of a position in neither nothing is promised: write that record again later.

        Args:
            message: for the log; says why where records are to be written again.
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
