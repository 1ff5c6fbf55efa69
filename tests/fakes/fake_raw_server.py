"""A server on loopback that answers with given bytes, whatever they are, and counts who came."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterable


class FakeRawServer:
    """Sends the same pieces to each connection; use as a context."""

    def __init__(
        self, pieces: Iterable[bytes] = (), pause_s: float = 0.0, host: str = "127.0.0.1", port=0
    ) -> None:
        self.heard: list[bytes] = []
        """What each connection sent first; nothing for one that closed at once."""
        self._pieces = list(pieces)
        self._pause_s = pause_s
        self._listening = socket.create_server((host, port))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listening.getsockname()[1])

    def __enter__(self) -> "FakeRawServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                self.heard.append(connection.recv(65536))
                for piece in self._pieces:
                    if self._over.is_set():
                        return
                    connection.sendall(piece)
                    time.sleep(self._pause_s)
