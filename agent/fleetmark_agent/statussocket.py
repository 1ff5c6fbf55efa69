"""A local socket that says how the agent stands to who connects, and listens to nobody."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleetmark_protocol import logs

SOCKET_NAME = "status.sock"
ANSWER_S = 2.0
"""How long somebody who connected may take to read."""
MAX_ANSWER_BYTES = 1 << 16


@contextmanager
def served(state_dir: Path, answer: Callable[[], dict[str, object]]) -> Iterator[None]:
    """Answer on the state directory's socket meanwhile; without it the agent works all the same.

    Args:
        state_dir: held by this agent, so that a socket that lies there is nobody's.
        answer: called in a thread of ours for each that connects.
    """
    log = logs.get("status")
    try:
        listener = _listen(state_dir)
    except OSError as error:
        log.warning("status_socket_unavailable", reason=error.strerror or str(error))
        yield
        return
    thread = threading.Thread(target=_serve, args=(listener, answer), name="status", daemon=True)
    thread.start()
    try:
        yield
    finally:
        # Wakes the thread, which a mere close would not.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        with contextlib.suppress(OSError):
            (state_dir / SOCKET_NAME).unlink()


def ask(state_dir: Path, timeout_s: float = 5.0) -> dict[str, Any] | None:
    """Return how the agent of a state directory stands; None if none answers.

    Raises:
        PermissionError: this user may not ask.
        TimeoutError: it did not answer in time.
    """
    with _short(state_dir) as directory, _socket() as client:
        client.settimeout(timeout_s)
        try:
            client.connect(f"{directory}/{SOCKET_NAME}")
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        said = b""
        while chunk := client.recv(MAX_ANSWER_BYTES):
            said += chunk
    return dict(json.loads(said))


def _listen(state_dir: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        (state_dir / SOCKET_NAME).unlink()
    listener = _socket()
    try:
        with _short(state_dir) as directory:
            listener.bind(f"{directory}/{SOCKET_NAME}")
        # Whoever may look into the state directory may ask: owner and group, as the umask lets.
        listener.listen(8)
    except OSError:
        listener.close()
        raise
    return listener


def _serve(listener: socket.socket, answer: Callable[[], dict[str, object]]) -> None:
    log = logs.get("status")
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # Closed: the agent ends.
        try:
            with client:
                client.settimeout(ANSWER_S)
                client.sendall(json.dumps(answer()).encode())
        except OSError as error:
            log.debug("status_not_told", reason=str(error))
        except Exception:
            log.exception("status_not_known")


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)


@contextmanager
def _short(directory: Path) -> Iterator[str]:
    """Yield a short name of a directory: an address of a socket holds no more than 107 bytes."""
    try:
        handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield str(directory)[:80]
        return
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
