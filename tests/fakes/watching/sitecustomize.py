"""Writes down what a Python process and its children write to, connect to and execute.

Python imports a module of this name when it starts: tests put its directory on PYTHONPATH. Files
are told that were opened to be written, or whose path has the word that WATCH_WORD names.
"""

import json
import os
import sys

_OUT = os.open(os.environ["WATCH_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
_WORD = os.environ.get("WATCH_WORD", "\0")
_RUNS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system")
_CHANGES = ("os.remove", "os.rename", "os.link", "os.symlink", "os.mkdir", "os.chmod", "os.rmdir")


def _watch(event, args):
    if event == "open":
        path, _, flags = args
        if not isinstance(path, (str, bytes)):
            return
        name = os.fsdecode(path)
        if _WORD in name:
            _tell("reads", name)
        if flags is not None and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            _tell("writes", _whole(name))
    elif event == "socket.connect":
        _tell("connects", args[1])
    elif event in _RUNS:
        _tell("runs", [os.fsdecode(word) for word in args[1]] if len(args) > 1 else args[0])
    elif event in _CHANGES:
        for path in args[: 2 if event in ("os.rename", "os.link") else 1]:
            if isinstance(path, (str, bytes, os.PathLike)):
                _tell("writes", _whole(os.fsdecode(path)))


def _whole(path):
    # Not by pathlib: what it imports would be heard of, too.
    return os.path.abspath(path)  # noqa: PTH100


def _tell(what, value):
    # Told by os.write, which no hook hears of.
    os.write(_OUT, json.dumps([what, value], default=str).encode() + b"\n")


sys.addaudithook(_watch)
