"""A stand-in for the ollama program: its API over real HTTP, real inference by xllamacpp beneath.

`serve` answers and starts one `runner` process for each loaded model, as Ollama does; the runner
finds old prompts again, as Ollama's do. Counts and text are real work; times say nothing of Ollama.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fakes.fake_ollama_runner import Json, Refused, Runner, cut, run

VERSION = "0.0.0-fake"
FAULT = os.environ.get("FAKE_OLLAMA_FAULT", "")
"""`no_memory` at load, `error_line` or `cut` in the middle of a stream."""
RUNNER_OPTIONS = ("num_ctx", "num_thread", "num_batch", "num_gpu")


class Ollama:
    """What the handler works on."""

    def __init__(self, directory: Path) -> None:
        self.blobs = directory / "blobs"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.index = directory / "models.json"
        self.models: dict[str, Json] = {}
        if self.index.exists():
            self.models = json.loads(self.index.read_text())
        self.runner: Runner | None = None
        self.lock = threading.Lock()
        self.evaluated: list[int] = []
        """Prompt tokens really evaluated for each request: what the API does not say."""

    def blob(self, digest: str) -> Path:
        return self.blobs / digest.replace(":", "-")

    def find(self, name: str) -> Json:
        full = name if ":" in name else f"{name}:latest"
        if full not in self.models:
            raise Refused(404, f"model '{name}' not found")
        return self.models[full]

    def create(self, asked: Json) -> Json:
        if not asked.get("files"):
            raise Refused(400, "neither 'from' or 'files' was specified")
        digest = next(iter(asked["files"].values()))
        blob = self.blob(digest)
        if not blob.exists() or blob.read_bytes()[:4] != b"GGUF":
            raise Refused(400, "supplied file was not in GGUF format")
        name = f"{asked['model']}:latest"
        self.models[name] = {
            "name": name,
            "layer": digest,
            "template": asked.get("template", ""),
            "size": blob.stat().st_size,
            "digest": hashlib.sha256(f"{digest}{asked.get('template')}".encode()).hexdigest(),
        }
        self.index.write_text(json.dumps(self.models))
        return {"status": "success"}

    def show(self, name: str) -> Json:
        model = self.find(name)
        layer = self.blob(model["layer"])
        return {
            "template": model["template"],
            "modelfile": f"# Modelfile\nFROM {layer}\nTEMPLATE {model['template']}\n",
            "details": {"format": "gguf"},
            "model_info": {},
        }

    def held(self) -> list[Json]:
        runner = self.runner
        if runner is None:
            return []
        model = self.models[runner.model]
        entry = {"name": runner.model, "model": runner.model, "digest": model["digest"]}
        return [{**entry, "size": model["size"], "size_vram": 0, "context_length": runner.context}]

    def scheduled(self, asked: Json) -> Runner:
        """Return a runner with the model in it, another one put out for it."""
        model = self.find(asked["model"])
        options = asked.get("options") or {}
        chosen = {name: options[name] for name in RUNNER_OPTIONS if name in options}
        with self.lock:
            runner = self.runner
            if (
                runner is None
                or runner.model != model["name"]
                or runner.chosen != chosen
                or runner.process.poll() is not None
            ):
                if FAULT == "no_memory":
                    said = "model requires more system memory (9.9 GiB) than is available (1.2 GiB)"
                    raise Refused(500, said)
                self.unload()
                runner = Runner(model["name"], self.blob(model["layer"]), chosen)
                self.runner = runner
            return runner

    def unload(self) -> None:
        if self.runner is not None:
            self.runner.stop()
            self.runner = None

    def generate(self, asked: Json) -> Iterator[Json]:
        started_ns = time.perf_counter_ns()
        self.find(asked["model"])
        base = {"model": asked["model"], "created_at": datetime.now(UTC).isoformat()}
        if not asked.get("prompt") and asked.get("keep_alive") == 0:
            with self.lock:
                self.unload()
            yield {**base, "response": "", "done": True, "done_reason": "unload"}
            return
        runner = self.scheduled(asked)
        loaded_ns = time.perf_counter_ns() - started_ns
        if not asked.get("prompt"):
            yield {**base, "response": "", "done": True, "done_reason": "load"}
            return
        if not asked.get("raw"):
            raise Refused(400, "this stand-in has no templates")
        with runner.free:
            yield from self._answer(runner, asked, base, started_ns, loaded_ns)

    def _answer(
        self, runner: Runner, asked: Json, base: Json, started_ns: int, loaded_ns: int
    ) -> Iterator[Json]:
        options = asked.get("options") or {}
        said = runner.ask("POST", "/tokenize", {"content": asked["prompt"], "add_special": True})
        prompt = cut(json.load(said)["tokens"], options.get("num_keep", 4), runner.context)
        last, repeats, made = "", 0, 0
        for step in runner.steps(prompt, options):
            if "error" in step:
                raise Refused(500, str(step["error"]))
            repeats = repeats + 1 if step["content"].strip() == last else 0
            last = step["content"].strip()
            if repeats > 30:
                return
            made += 1
            if made == 4 and FAULT == "error_line":
                raise Refused(500, "model runner has unexpectedly stopped")
            if made == 4 and FAULT == "cut":
                raise BrokenPipeError
            if not step["stop"]:
                if step["content"]:
                    yield {**base, "response": step["content"], "done": False}
                continue
            timings = step["timings"]
            self.evaluated.append(timings["prompt_n"])
            yield {
                **base,
                "response": step["content"],
                "done": True,
                "done_reason": "length" if step.get("stop_type") == "limit" else "stop",
                "total_duration": time.perf_counter_ns() - started_ns,
                "load_duration": loaded_ns,
                "prompt_eval_count": timings["cache_n"] + timings["prompt_n"],
                "prompt_eval_duration": int(timings["prompt_ms"] * 1e6),
                "eval_count": timings["predicted_n"],
                "eval_duration": int(timings["predicted_ms"] * 1e6),
            }


def handler_of(ollama: Ollama) -> type[BaseHTTPRequestHandler]:
    """Return a handler that answers for this server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answers: dict[str, Any] = {
                "/api/version": {"version": VERSION},
                "/api/ps": {"models": ollama.held()},
                "/api/tags": {
                    "models": [
                        {**one, "model": one["name"], "details": {"quantization_level": "Q4_1"}}
                        for one in ollama.models.values()
                    ]
                },
                "/fake/evaluated": ollama.evaluated,
            }
            found = answers.get(self.path)
            self._json(200 if found is not None else 404, found)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                if self.path.startswith("/api/blobs/"):
                    self._blob(self.path.rpartition("/")[2], body)
                elif self.path == "/api/generate":
                    self._generate(json.loads(body))
                elif self.path == "/api/create":
                    self._json(200, ollama.create(json.loads(body)))
                elif self.path == "/api/show":
                    self._json(200, ollama.show(json.loads(body)["model"]))
                else:
                    self._json(404, {"error": "not found"})
            except Refused as error:
                self._json(error.status, {"error": str(error)})

        def _blob(self, digest: str, body: bytes) -> None:
            if f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
                raise Refused(400, "digest mismatch")
            ollama.blob(digest).write_bytes(body)
            self._send(201, b"")

        def _generate(self, asked: Json) -> None:
            parts = ollama.generate(asked)
            if asked.get("stream") is False:
                whole = list(parts)
                text = "".join(part["response"] for part in whole)
                self._json(200, {**whole[-1], "response": text})
                return
            first = next(parts, None)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                while first is not None:
                    self._chunk(first)
                    first = next(parts, None)
            except Refused as error:
                self._chunk({"error": str(error)})
            except OSError:
                # Whoever asked is gone, or is to see the connection break.
                parts.close()
                self.close_connection = True
                return
            self.wfile.write(b"0\r\n\r\n")

        def _chunk(self, part: Json) -> None:
            line = json.dumps(part).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

        def _json(self, status: int, answer: Any) -> None:
            self._send(status, json.dumps(answer).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            print(args[0] % args[1:], file=sys.stderr)

    return Handler


def serve() -> None:
    """Answer until SIGTERM; settings come from the environment, as Ollama's do."""
    host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
    ollama = Ollama(Path(os.environ["OLLAMA_MODELS"]))
    server = ThreadingHTTPServer((host, int(port)), handler_of(ollama))
    server.daemon_threads = True

    def end(*_: object) -> None:
        ollama.unload()
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    server.serve_forever()


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="ollama")
    parser.add_argument("--version", action="version", version=f"ollama version is {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve")
    runner = commands.add_parser("runner")
    runner.add_argument("model")
    runner.add_argument("port", type=int)
    runner.add_argument("chosen", type=json.loads)
    args = parser.parse_args()
    if args.command == "serve":
        serve()
    else:
        run(args.model, args.port, args.chosen)


if __name__ == "__main__":
    main()
