"""The shortest script for each engine: what somebody writes who only wants tokens per second.

    python benchmarks/shortest.py BACKEND MODEL THREADS [PROGRAM]

For each number read from standard input it generates as many tokens from the benchmark's prompt,
greedily and with nothing cached, and prints decode tokens per second: (n - 1) / (last - first).
"""

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable

PROMPT = "The history of the Roman Empire begins with"
CONTEXT_TOKENS = 512

Ask = Callable[[int], list[float]]
"""Generates so many tokens and returns when each was out, in seconds."""


def llama_cpp(model: str, threads: int) -> Ask:
    import llama_cpp

    llm = llama_cpp.Llama(
        model, n_ctx=CONTEXT_TOKENS, n_threads=threads, n_threads_batch=threads, verbose=False
    )
    ids = llm.tokenize(PROMPT.encode())

    def ask(tokens: int) -> list[float]:
        llm.reset()
        times = []
        for _ in llm.generate(ids, temp=0.0, top_k=1):
            times.append(time.perf_counter())
            if len(times) == tokens:
                break
        return times

    return ask


def xllamacpp(model: str, threads: int) -> Ask:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.warmup = False
    params.verbosity = 0
    server = xllamacpp.Server(params)

    def ask(tokens: int) -> list[float]:
        times: list[float] = []

        def on_chunk(chunk: dict) -> bool:
            if chunk["choices"][0]["text"]:
                times.append(time.perf_counter())
            return False

        server.handle_completions({**_request(), "max_tokens": tokens}, on_chunk)
        return times

    return ask


def llama_server(model: str, threads: int, program: str) -> Ask:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "-m", model, "-c", str(CONTEXT_TOKENS), "-np", "1", "-ngl", "0"]
    command += ["-t", str(threads), "-tb", str(threads), "--port", str(port), "--no-warmup"]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)

    def post(path: str, body: dict) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        return connection.getresponse()

    def ready() -> bool:
        try:
            return post("/tokenize", {"content": "a"}).status == 200
        except OSError:
            return False

    while not ready():
        assert server.poll() is None, "the server did not start"
        time.sleep(0.05)

    def ask(tokens: int) -> list[float]:
        body = {**_request(), "n_predict": tokens}
        events = (line for line in post("/completion", body) if line.startswith(b"data: "))
        return [time.perf_counter() for event in events if json.loads(event[6:])["content"]]

    return ask


def transformers(model: str, threads: int) -> Ask:
    import torch
    import transformers

    torch.set_num_threads(threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    module = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    inputs = tokenizer(PROMPT, return_tensors="pt")

    class Times(list):
        """Called with the prompt, then with each token."""

        def put(self, _ids: object) -> None:
            self.append(time.perf_counter())

        def end(self) -> None:
            pass

    def ask(tokens: int) -> list[float]:
        times = Times()
        module.generate(
            **inputs,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            streamer=times,
        )
        return times[1:]

    return ask


def ctransformers(model: str, threads: int) -> Ask:
    import ctransformers

    config = ctransformers.Config(context_length=CONTEXT_TOKENS, threads=threads)
    llm = ctransformers.LLM(model, "llama", config=config)
    ids = llm.tokenize(PROMPT)

    def ask(tokens: int) -> list[float]:
        times = []
        for _ in llm.generate(ids, top_k=1, repetition_penalty=1.0, reset=True):
            times.append(time.perf_counter())
            if len(times) == tokens:
                break
        return times

    return ask


def _request() -> dict:
    return {
        "prompt": PROMPT,
        "temperature": 0,
        "samplers": ["temperature"],
        "ignore_eos": True,
        "cache_prompt": False,
        "stream": True,
    }


ENGINES: dict[str, Callable[..., Ask]] = {
    made.__name__: made
    for made in (llama_cpp, xllamacpp, llama_server, transformers, ctransformers)
}


def main() -> None:
    backend, model, threads, *program = sys.argv[1:]
    ask = ENGINES[backend](model, int(threads), *program)
    for line in sys.stdin:
        times = ask(int(line))
        if len(times) < int(line) - 2:
            sys.exit(f"{len(times)} tokens instead of {line}")
        print((len(times) - 1) / (times[-1] - times[0]), flush=True)


if __name__ == "__main__":
    main()
