"""Structured logs: one event name with key=value, human on a terminal, JSON elsewhere.

Made of the standard module alone: the agent stays resident on small devices, and the usual library
for this brings three times its own weight of terminal drawing along.
"""

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

LogFormat = Literal["auto", "human", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

OURS = "fleetmark"
"""Above all our loggers; what others log has its own names."""
COLORS = {"debug": "2", "warning": "33", "error": "31", "critical": "31"}


class Logger:
    """Says what happened: an event's name that never changes, and the values of this time."""

    def __init__(self, part: str) -> None:
        self._logger = logging.getLogger(f"{OURS}.{part}")

    def debug(self, event: str, /, **values: object) -> None:
        """Say what helps to follow the program."""
        self._logger.debug(event, extra={"values": values})

    def info(self, event: str, /, **values: object) -> None:
        """Say what an operator may want to know."""
        self._logger.info(event, extra={"values": values})

    def warning(self, event: str, /, **values: object) -> None:
        """Say what an operator should know."""
        self._logger.warning(event, extra={"values": values})

    def error(self, event: str, /, **values: object) -> None:
        """Say what an operator must see to."""
        self._logger.error(event, extra={"values": values})

    def exception(self, event: str, /, **values: object) -> None:
        """Say that our own code failed, with the traceback of the exception being handled."""
        self._logger.exception(event, extra={"values": values})


def get(name: str) -> Logger:
    """Return a logger that says which part is speaking."""
    return Logger(name)


def configure(level: LogLevel = "info", form: LogFormat = "auto") -> None:
    """Set logging up for this process; logs go to standard error, never into a command's output."""
    terminal = sys.stderr.isatty()
    human = form == "human" or (form == "auto" and terminal)
    handler = _ToStandardError()
    handler.setFormatter(_Human(color=terminal) if human else _Json())
    root = logging.getLogger()
    for old in [known for known in root.handlers if isinstance(known, _ToStandardError)]:
        root.removeHandler(old)
    root.addHandler(handler)
    # What libraries warn of matters, their chatter does not.
    root.setLevel(logging.WARNING)
    logging.getLogger(OURS).setLevel(level.upper())


def log_uncaught() -> None:
    """Have what nobody catches logged like everything else: a journal is read line by line."""
    logger = logging.getLogger(OURS)

    def of_thread(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None and not isinstance(failed.exc_value, SystemExit):
            name = failed.thread.name if failed.thread else "unknown"
            logger.error(
                "thread_died", exc_info=failed.exc_value, extra={"values": {"thread": name}}
            )

    def of_process(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            logger.error("process_died", exc_info=(kind, error, trace))

    threading.excepthook = of_thread
    sys.excepthook = of_process


class _ToStandardError(logging.Handler):
    """Asks for each line what standard error is: it may change (tests, a daemon's redirection)."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - a log line that cannot be written must break nothing
            self.handleError(record)


class _Json(logging.Formatter):
    """One JSON object a line, in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        head = {
            "timestamp": stamp.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "part": _part(record),
            "event": record.getMessage(),
        }
        # Twice: in front, and not to be overwritten by a value of the same name.
        line = head | _values(record) | head
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _Human(logging.Formatter):
    """Local time, level, part and event, then key=value; nothing that could move the cursor."""

    def __init__(self, *, color: bool) -> None:
        super().__init__()
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        stamp = datetime.fromtimestamp(record.created).astimezone().isoformat(" ", "seconds")[:19]
        level = record.levelname.lower()
        shown = f"{level:<8}"
        if self._color and level in COLORS:
            shown = f"\x1b[{COLORS[level]}m{shown}\x1b[0m"
        values = [f"{_plain(key)}={_plain(value)}" for key, value in _values(record).items()]
        line = " ".join([stamp, shown, f"{_part(record)}:", _printable(record.getMessage())])
        if values:
            line += "  " + " ".join(values)
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line += "".join(f"\n    {_printable(step)}" for step in trace)
        return line


def _part(record: logging.LogRecord) -> str:
    return record.name.removeprefix(f"{OURS}.")


def _values(record: logging.LogRecord) -> dict[str, Any]:
    """Return the values of one of our events; none where a library speaks."""
    return getattr(record, "values", {})


def _plain(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and text and " " not in text else repr(text)


def _printable(text: str) -> str:
    """Escape what is no visible character, so that nothing from outside forges a line."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
