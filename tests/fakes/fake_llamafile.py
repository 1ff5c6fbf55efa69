"""A stand-in for the llamafile program: its flags and output by version, over a real llama.cpp.

What is real: tokenizer, inference and counts (xllamacpp in this process), the way the file is
started (a shell reads it, as one made for any system), and that unknown flags are refused. What is
imitated, from the sources of llamafile 0.6.1, 0.9.3 and 0.10: flags, manual, HTTP answers, printed
times. No figure of llamafile's speed may come from it.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VALUES = ["-m", "--model"], ["-c", "--ctx-size"], ["-b", "--batch-size"], ["-ngl", "--n-gpu-layers"]
VALUES += ["-t", "--threads"], ["-tb", "--threads-batch"]
SERVER_VALUES = (["--host"], ["--port"], ["-np", "--parallel"])
CLI_VALUES = (["-f", "--file"], ["-n", "--n-predict"], ["-s", "--seed"])
SAMPLING = ("--temp", "--repeat-penalty", "--top-k", "--top-p", "--min-p", "--tfs", "--typical")
NEW_SERVER = ("--cache-ram", "--ctx-checkpoints", "--fit")
OLD_SWITCHES = ("--nobrowser", "--ignore-eos", "--simple-io", "--silent-prompt", "--log-disable")
OLD_SWITCHES += ("--cont-batching",)
NEW_SWITCHES = ("--no-warmup", "--no-cache-prompt", "--no-context-shift", "--no-ui")


def write_llamafile(file: Path, version: str, weights: Path | None = None) -> str:
    """Write a fake llamafile and return its digest.

    Args:
        file: what to write.
        version: `0.6.1`, `0.9.3` or `0.10.0`.
        weights: a GGUF file to put inside.
    """
    # Not `sys.executable`, which differs by how the tests were started, and the digest with it.
    python = f"{sys.prefix}/bin/python"
    shell = f"exec '{python}' '{Path(__file__).resolve()}' {version} \"$0\" \"$@\"\nexit 1\n"
    file.write_bytes(b"MZqFpD='\n'\n" + shell.encode())
    if weights is not None:
        with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
            archive.write(weights, "weights.gguf")
    file.chmod(0o755)
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def main() -> int:
    version, itself, *words = sys.argv[1:]
    numbers = tuple(int(part) for part in version.split("."))
    if "--version" in words:
        print(f"llamafile v{version}")
        return 0
    serves = "--server" in words
    parser = _parser(numbers, serves)
    if "--help" in words:
        print(_manual(numbers, parser))
        return 0
    args, unknown = parser.parse_known_args(words)
    if unknown:
        print(f"error: unknown argument: {unknown[0]}", file=sys.stderr)
        return 1
    args.model = args.model or _unpacked(itself)
    if serves:
        return _serve(args, numbers)
    if numbers >= (0, 10):
        print("Sure! (the chat template was applied)")
        return 0
    return _complete_once(args, numbers)


def _parser(version: tuple[int, ...], serves: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for names in VALUES:
        parser.add_argument(*names)
    switches = ["--server", "--cli"]
    values = [*SERVER_VALUES] if serves or version < (0, 10) else []
    if version >= (0, 10):
        switches += NEW_SWITCHES
        values += [[name] for name in NEW_SERVER]
    else:
        switches += OLD_SWITCHES
        values += CLI_VALUES
        values += [[name] for name in SAMPLING]
    if (0, 8) <= version < (0, 10):
        switches += ["--no-display-prompt", "--no-warmup", "--no-escape"]
    for name in switches:
        parser.add_argument(name, action="store_true")
    for names in values:
        parser.add_argument(*names)
    return parser


def _manual(version: tuple[int, ...], parser: argparse.ArgumentParser) -> str:
    """The manual of 0.9 is in bold and silent on two flags; newer ones are llama.cpp's help."""
    unsaid = {"--no-warmup", "--no-escape"} if version < (0, 10) else {"--server", "--cli"}
    lines = ["LLAMAFILE(1)   General Commands Manual", ""]
    for action in parser._actions:
        if unsaid.isdisjoint(action.option_strings):
            names = ", ".join(action.option_strings)
            bold = f"\x1b[1m{names}\x1b[0m" if version[:2] == (0, 9) else names
            lines += [f"{'' if version >= (0, 10) else '     '}{bold}", "             what it does"]
    return "\n".join(lines)


def _unpacked(itself: str) -> str:
    target = Path(os.environ["TMPDIR"]) / f"weights{os.getpid()}.gguf"
    with (
        zipfile.ZipFile(itself) as archive,
        archive.open("weights.gguf") as inside,
        target.open("wb") as out,
    ):
        shutil.copyfileobj(inside, out)
    return str(target)


class Engine:
    """The real llama.cpp, listening on the loopback."""

    def __init__(self, args: argparse.Namespace, port: int = 0, key: str | None = None) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = args.model
        params.n_ctx = int(args.ctx_size or 512)
        params.n_parallel = int(getattr(args, "parallel", None) or 1)
        params.kv_unified = False
        # Older ones take no request in while another is worked at unless they are told to.
        params.cont_batching = getattr(args, "cont_batching", True)
        params.n_gpu_layers = 0
        params.warmup = False
        params.fit_params = False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(args.threads or 2)
        params.hostnames = ["127.0.0.1"]
        params.port = port
        params.api_keys = [key] if key else []
        params.ui = False
        params.verbosity = 1
        started_s = time.perf_counter()
        try:
            self.server = xllamacpp.Server(params)
        except (RuntimeError, ValueError):
            print("error: unable to load model", file=sys.stderr)
            sys.exit(1)
        self.load_ms = 1e3 * (time.perf_counter() - started_s)
        self.context_tokens = params.n_ctx
        self.url = self.server.listening_address

    def post(self, path: str, body: dict[str, Any]) -> Any:
        raw = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, raw, {"Content-Type": "application/json"})
        return urllib.request.urlopen(request)

    def steps(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for line in self.post("/completion", {**body, "stream": True}):
            if line.startswith(b"data: "):
                yield json.loads(line[6:])


def _serve(args: argparse.Namespace, version: tuple[int, ...]) -> int:
    if version < (0, 10):
        engine = Engine(args)
        front = ThreadingHTTPServer((args.host, int(args.port)), _old_protocol(engine, version))
        print(f"\nllama server listening at http://{args.host}:{args.port}\n", file=sys.stderr)
        front.serve_forever()
    engine = Engine(args, int(args.port), os.environ.get("LLAMA_API_KEY"))
    signal.pause()
    return 0


def _old_protocol(engine: Engine, version: tuple[int, ...]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = version >= (0, 6, 2) and self.path == "/health"
            self._answer(200 if known else 404, b'{"status":"ok"}' if known else b"File Not Found")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/tokenize":
                # It knows no other field: special tokens are never added.
                raw = engine.post("/tokenize", {"content": body["content"]}).read()
                self._answer(200, raw)
            elif self.path == "/completion":
                self._stream(body)
            else:
                self._answer(404, b"File Not Found")

        def _answer(self, status: int, raw: bytes) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(raw)

        def _stream(self, body: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for step in engine.steps(body):
                    old = {"content": step["content"], "multimodal": False, "slot_id": 0}
                    old["stop"] = step["stop"]
                    if step["stop"]:
                        old |= _old_end(step)
                    elif not step["content"]:
                        continue
                    self.wfile.write(b"data: " + json.dumps(old).encode() + b"\n\n")

        def log_message(self, *_args: Any) -> None:
            return

    return Handler


def _old_end(step: dict[str, Any]) -> dict[str, Any]:
    return {
        "stopped_eos": step["stop_type"] == "eos",
        "stopped_limit": step["stop_type"] == "limit",
        "stopped_word": step["stop_type"] == "word",
        "tokens_evaluated": step["tokens_evaluated"],
        "tokens_predicted": step["tokens_predicted"],
        "truncated": False,
        "timings": {
            name: step["timings"][name]
            for name in ("prompt_n", "prompt_ms", "predicted_n", "predicted_ms")
        },
    }


def _complete_once(args: argparse.Namespace, version: tuple[int, ...]) -> int:
    Path("main.log").write_text("a log that is left where it is started\n")
    prompt = Path(args.file).read_text("utf-8").removesuffix("\n")
    if version >= (0, 8, 13) and not args.no_escape:
        prompt = prompt.encode("latin-1", "backslashreplace").decode("unicode_escape")
    engine = Engine(args)
    tokens = json.load(engine.post("/tokenize", {"content": prompt, "add_special": True}))["tokens"]
    if len(tokens) > engine.context_tokens - 4:
        most = engine.context_tokens - 4
        print(
            f"main: error: prompt is too long ({len(tokens)} tokens, max {most})", file=sys.stderr
        )
        return 1
    body = {
        "prompt": tokens,
        "n_predict": int(args.n_predict),
        "temperature": float(args.temp or 0.8),
        "seed": int(args.seed or 0),
        "ignore_eos": args.ignore_eos,
        # What the program does to the distribution where nobody tells it not to.
        "repeat_penalty": float(args.repeat_penalty or 1.1),
        "top_k": int(args.top_k or 40),
        "top_p": float(args.top_p or 0.95),
        "min_p": float(args.min_p or 0.05),
        "cache_prompt": False,
    }
    shown = args.silent_prompt or getattr(args, "no_display_prompt", False)
    sys.stdout.write("" if shown else prompt)
    end: dict[str, Any] = {}
    for step in engine.steps(body):
        sys.stdout.write(step["content"])
        sys.stdout.flush()
        end = step
    if end["stop_type"] == "eos":
        print(" [end of text]", file=sys.stderr)
    if version >= (0, 6, 2):
        print()
    print(_times(engine.load_ms, end["timings"], end["tokens_predicted"]), file=sys.stderr)
    return 0


def _times(load_ms: float, timings: dict[str, float], made: int) -> str:
    def line(what: str, ms: float, count: int, unit: str) -> str:
        rate = f"({ms / max(count, 1):8.2f} ms per token, {1e3 * count / max(ms, 1e-9):8.2f} tokens"
        return f"llama_print_timings: {what} = {ms:10.2f} ms / {count:5d} {unit} {rate} per second)"

    total_ms = timings["prompt_ms"] + timings["predicted_ms"]
    return "\n".join(
        [
            "",
            f"llama_print_timings:        load time = {load_ms:10.2f} ms",
            line("     sample time", 1.5, made, "runs  "),
            line("prompt eval time", timings["prompt_ms"], int(timings["prompt_n"]), "tokens"),
            line("       eval time", timings["predicted_ms"], made - 1, "runs  "),
            f"llama_print_timings:       total time = {total_ms:10.2f} ms",
            "Log end",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
