"""Runs one of our scripts as root on a device, by the system's ssh; nothing asks for a password."""

import asyncio
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fleetmark_protocol.errors import ConfigError, FleetmarkError

SAID_BYTES = 2**20
"""Of what a device says no more is read: it may be anybody's."""
LAST_WORDS = 400
CONNECT_S = 15

_SSH_FAILED = 255
_NO_SUDO = 92
_SUDO_ASKS = 93

# Scripts are constants: what differs from device to device comes by standard input.
_AS_ROOT = f"""\
PATH=$PATH:/usr/sbin:/sbin
if [ "$(id -u)" -eq 0 ]; then exec sh -c "$1"; fi
command -v sudo >/dev/null || exit {_NO_SUDO}
sudo -n true </dev/null 2>/dev/null || exit {_SUDO_ASKS}
exec sudo -n sh -c "$1"
"""

_OPTIONS = {
    # Never a question: there may be a hundred of them, and nobody sits there.
    "BatchMode": "yes",
    "ConnectTimeout": str(CONNECT_S),
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "4",
    # A device gets none of the user's keys, windows and ports, whatever the configuration says.
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "ClearAllForwardings": "yes",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
}

_REASONS = (
    ("Host key verification failed", "ssh does not know, or no longer knows, the host's key",
     "connect to it once by hand: `ssh {destination}`"),
    ("Permission denied", "ssh is not let in without a password",
     "let your key in: `ssh-copy-id {destination}`"),
    ("Could not resolve", "the name cannot be resolved", None),
    ("Connection refused", "nothing listens on its ssh port", "is sshd switched on there?"),
    ("timed out", "nothing comes back from it", "is it on, and no firewall between?"),
    ("No route to host", "there is no way to it", "is it on, and in this network?"),
)  # fmt: skip


@dataclass(frozen=True)
class Ssh:
    """The system's ssh, with the user's configuration and known hosts."""

    program: str
    config: Path | None = None
    """Read in the place of the user's and the system's configuration."""

    async def run(
        self, destination: str, script: str, given: bytes | Path = b"", *, limit_s: float
    ) -> str:
        """Run a script as root and return what it says.

        Args:
            destination: checked by `hosts`.
            script: a constant for `sh`.
            given: its standard input: bytes, or what is in a file.
            limit_s: killed after so long.

        Raises:
            FleetmarkError: no way there, no rights there, or the script failed; or ssh cannot be
                started here.
        """
        command = f"sh -c {shlex.quote(_AS_ROOT)} fleetmark {shlex.quote(script)}"
        options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
        config = [] if self.config is None else ["-F", str(self.config)]
        try:
            with _opened(given) as source:
                process = await asyncio.create_subprocess_exec(
                    *(self.program, *config, *options, "--", destination, command),
                    stdin=source,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                )
        except OSError as error:
            # Of this device alone: others may have what they need already.
            raise FleetmarkError(f"here, not on the device: {error}") from error
        try:
            async with asyncio.timeout(limit_s):
                out, errors, _ = await asyncio.gather(
                    _first(process.stdout), _last(process.stderr), _feed(process.stdin, given)
                )
                code = await process.wait()
        except TimeoutError as error:
            raise FleetmarkError(f"no answer within {limit_s:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if code != 0:
            raise _failure(code, destination, errors or out[-LAST_WORDS:])
        return out


def find_ssh(config: Path | None) -> Ssh:
    """Return the ssh of this machine.

    Raises:
        ConfigError: there is none, or its configuration cannot be read.
    """
    program = shutil.which("ssh")
    if program is None:
        raise ConfigError("ssh is missing", hint="apt install openssh-client")
    if config is not None:
        try:
            config.open("rb").close()
        except OSError as error:
            raise ConfigError(f"--ssh-config: {error}") from error
    return Ssh(program, config)


@contextmanager
def _opened(given: bytes | Path) -> Iterator[int | BinaryIO]:
    if isinstance(given, bytes):
        yield asyncio.subprocess.PIPE
    else:
        with given.open("rb") as file:
            yield file


async def _feed(to: asyncio.StreamWriter | None, given: bytes | Path) -> None:
    if to is None or not isinstance(given, bytes):
        return
    # Who hangs up before it has read all says why, or ends with a code.
    with suppress(ConnectionError):
        to.write(given)
        await to.drain()
        to.close()
        await to.wait_closed()


async def _first(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None  # noqa: S101 - asked for above; tells the type checker
    said = bytearray()
    while part := await stream.read(2**16):
        said += part[: SAID_BYTES - len(said)]
    return said.decode("utf-8", "replace")


async def _last(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None  # noqa: S101 - as above
    said = b""
    while part := await stream.read(2**16):
        said = (said + part)[-4 * LAST_WORDS :]
    return said.decode("utf-8", "replace")


def _failure(code: int, destination: str, said: str) -> FleetmarkError:
    if code == _NO_SUDO:
        return FleetmarkError("sudo is missing there", hint="install it, or come as root")
    if code == _SUDO_ASKS:
        return FleetmarkError(
            "sudo asks for a password, or lets this user do nothing",
            hint="a line NOPASSWD: ALL for it in /etc/sudoers.d, at least for the time being",
        )
    words = last_words(said)
    if code != _SSH_FAILED:
        return FleetmarkError(words or f"it ended with {code} and said nothing")
    for sign, reason, hint in _REASONS:
        if sign in said:
            return FleetmarkError(reason, hint=hint and hint.format(destination=destination))
    return FleetmarkError(f"ssh: {words}" if words else "ssh: the connection broke")


def last_words(said: str) -> str:
    """Return the end of what a device said, in one line that a terminal may be shown."""
    plain = "".join(char if char.isprintable() else " " for char in said)
    return " ".join(plain.split())[-LAST_WORDS:]
