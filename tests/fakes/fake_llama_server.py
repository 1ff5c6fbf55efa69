"""A stand-in for the llama-server program with faults that the real one shows on no order.

It knows a few flags, says canned words and computes nothing: what is tested by it is how a server
is started, waited for and explained when it dies, and how its answers are read.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FLAGS = "--model --host --port --ctx-size --threads --batch-size --parallel --no-webui --no-warmup"
FLAGS += " --cont-batching --no-kv-unified"
WORDS = (" one", " two", " three")


def write_llama_server(directory: Path, fault: str = "") -> Path:
    """Return a program with a fault.

    Args:
        directory: where to put it.
        fault: `cannot run`, `dies at start`, `no memory`, `no model`, `port taken`, `never ready`,
            `next port`, `dies in the middle`, `breaks off`, `never answers`,
            `answers two together`, `one slot`, `hangs in the middle` (and hears no SIGTERM).
    """
    program = directory / "llama-server"
    program.write_text(
        f"#!/bin/sh\nexec '{sys.executable}' '{Path(__file__).resolve()}' '{fault}' \"$@\"\n"
    )
    program.chmod(0o755)
    return program


def main() -> int:
    fault, *words = sys.argv[1:]
    if fault == "cannot run":
        os.kill(os.getpid(), 4)
    if words == ["--help"]:
        print("----- params -----\n" + "\n".join(f"{flag} N   what" for flag in FLAGS.split()))
        return 0
    if words == ["--version"]:
        print("version: 4567 (abcdef12)\nbuilt with cc", file=sys.stderr)
        return 0
    given = dict(zip(words[::1], [*words[1:], ""], strict=True))
    unknown = [word for word in words if word.startswith("--") and word not in FLAGS.split()]
    if unknown:
        print(f"error: invalid argument: {unknown[0]}", file=sys.stderr)
        return 1
    print("system_info: n_threads = 2 | CPU : AVX2 = 1 | AVX512 = 0 | FMA = 1 |", file=sys.stderr)
    said = {
        "dies at start": "srv: something is broken",
        "no memory": "ggml_backend_cpu_buffer: failed to allocate buffer of size 99",
        "no model": "main: exiting due to model loading error",
    }.get(fault)
    if given["--model"] == os.devnull or said is not None:
        print(said or "main: exiting due to model loading error", file=sys.stderr)
        return 1
    once = Path(sys.argv[0]).with_name(f"taken-{os.getppid()}")
    if fault == "port taken" and not once.exists():
        once.touch()
        print("couldn't bind HTTP server socket, hostname: 127.0.0.1", file=sys.stderr)
        return 1
    once.unlink(missing_ok=True)
    if fault == "never ready":
        time.sleep(600)
    if fault == "hangs in the middle":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Some take another where theirs is taken.
    port = 0 if fault == "next port" else int(given["--port"])
    ThreadingHTTPServer((given["--host"], port), handler(fault)).serve_forever()
    return 0


def handler(
    fault: str = "", steps: tuple[dict[str, Any], ...] | None = None, raw_steps: bytes = b""
) -> type[BaseHTTPRequestHandler]:
    """Return what answers as llama.cpp's server does.

    Args:
        fault: see `write_llama_server`.
        steps: of the answer to `/completion`; default: `WORDS` in today's form.
        raw_steps: sent in place of them.
    """

    class Handler(BaseHTTPRequestHandler):
        asked: tuple[dict[str, Any], ...] = ()
        together = threading.Barrier(2 if fault == "answers two together" else 1, timeout=20)

        def do_GET(self) -> None:
            slots = {"total_slots": 1} if fault == "one slot" else {}
            self._answer(200, {"status": "ok", **slots})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            type(self).asked += ({"path": self.path, **body},)
            if self.path == "/tokenize":
                ids = list(range(len(body["content"].split())))
                pieces = [{"id": i, "piece": "?"} for i in ids]
                self._answer(200, {"tokens": pieces if body.get("with_pieces") else ids})
            else:
                self._stream(len(body["prompt"]))

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def _stream(self, prompt_tokens: int) -> None:
            if fault == "never answers":
                time.sleep(600)
            self.send_response(200)
            self.end_headers()
            # Breaks off where the other one comes only after the end of this.
            self.together.wait()
            if raw_steps:
                self.wfile.write(raw_steps)
                return
            for number, step in enumerate(steps if steps is not None else today(prompt_tokens)):
                if number == 2 and fault == "dies in the middle":
                    print("srv: a bug was met", file=sys.stderr, flush=True)
                    os._exit(9)
                if number == 2 and fault == "breaks off":
                    return
                if number == 2 and fault == "hangs in the middle":
                    self.wfile.flush()
                    time.sleep(600)
                self.wfile.write(b"data: " + json.dumps(step).encode() + b"\n\n")

        def log_message(self, *_args: Any) -> None:
            return

    return Handler


def today(prompt_tokens: int) -> tuple[dict[str, Any], ...]:
    """Return the steps of an answer as today's servers send them."""
    made = tuple(
        {"content": word, "tokens": [number], "stop": False, "tokens_predicted": number + 1}
        for number, word in enumerate(WORDS)
    )
    end = {
        "content": "",
        "tokens": [],
        "stop": True,
        "stop_type": "limit",
        "tokens_predicted": len(WORDS),
        "tokens_evaluated": prompt_tokens,
        "timings": {"prompt_n": prompt_tokens, "prompt_ms": 20.0, "predicted_ms": 30.0},
    }
    return (*made, end)


if __name__ == "__main__":
    sys.exit(main())
