"""The process a backend lives in: takes commands as JSON lines, answers when the work is done.

It measures and says nothing in between: what the parent hears of a trial comes after its end.
"""

import argparse
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from fleetmark_agent.backends import registry
from fleetmark_agent.backends.base import (
    Backend,
    Completion,
    Prepares,
    PreparesRounds,
    Token,
    ran_out_of_memory,
)
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import BackendError, FleetmarkError, OutOfMemory
from fleetmark_protocol.messages import Options

PR_SET_PDEATHSIG = 1

Answer = dict[str, Any]


def main() -> int:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="fleetmark_agent.worker", description=__doc__)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--answers-fd", type=int, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    args = parser.parse_args()
    _die_with(args.parent_pid)
    with os.fdopen(args.answers_fd, "w", encoding="utf-8") as answers:
        return _serve(args.backend, sys.stdin, answers)


def _serve(name: str, commands: TextIO, answers: TextIO) -> int:
    backend: Backend | None = None
    for line in commands:
        command = json.loads(line)
        try:
            if backend is None:
                engines = EnginesSettings.model_validate(command.get("engines", {}))
                backend = registry.create(name, engines)
            answer = _COMMANDS[command["do"]](backend, command)
        except Exception as error:  # noqa: BLE001 - whatever an engine raises becomes an answer
            answer = _failure(error)
        json.dump(answer, answers)
        answers.write("\n")
        answers.flush()
    if backend is not None:
        backend.close()
    return 0


def _load(backend: Backend, command: dict[str, Any]) -> Answer:
    report = backend.load(Path(command["model"]), Options.model_validate(command["options"]))
    return {
        **asdict(report),
        "prepares": isinstance(backend, Prepares),
        "prepares_rounds": isinstance(backend, PreparesRounds),
    }


def _prepare(backend: Backend, command: dict[str, Any]) -> Answer:
    if isinstance(backend, Prepares):
        backend.prepare(command["prompt"], Options.model_validate(command["options"]))
    return {}


def _prepare_round(backend: Backend, command: dict[str, Any]) -> Answer:
    if isinstance(backend, PreparesRounds):
        backend.prepare_round(command["prompts"], Options.model_validate(command["options"]))
    return {}


def _generate(backend: Backend, command: dict[str, Any]) -> Answer:
    options = Options.model_validate(command["options"])
    return _timed(backend.generate(command["prompt"], command["output_tokens"], options))


def _generate_round(backend: Backend, command: dict[str, Any]) -> Answer:
    """Ask all prompts at the same time, each by a thread of its own, on one clock.

    What becomes of one client is its own answer: the others go on.
    """
    options = Options.model_validate(command["options"])
    prompts: list[str] = command["prompts"]
    answers: list[Answer] = [{} for _ in prompts]
    together = threading.Barrier(len(prompts))

    def ask(client: int) -> None:
        try:
            together.wait()
            stream = backend.generate(prompts[client], command["output_tokens"], options)
            answers[client] = _timed(stream)
        except Exception as error:  # noqa: BLE001 - as for one request
            answers[client] = _failure(error)

    threads = [
        threading.Thread(target=ask, args=(client,), daemon=True) for client in range(len(prompts))
    ]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        # The machine has no more threads: those that wait must not wait for ever.
        together.abort()
        raise
    for thread in threads:
        thread.join()
    return {"clients": answers}


def _timed(stream: Iterable[Token | Completion]) -> Answer:
    """Take a stream to its end.

    Everything the request needs was made before the clock starts, and all that is made of the
    answer is made after it stopped.
    """
    steps: list[Token] = []
    completion: Completion | None = None
    start_ns = time.perf_counter_ns()
    for item in stream:
        if isinstance(item, Token):
            steps.append(item)
        else:
            completion = item
    end_ns = time.perf_counter_ns()
    return {
        "start_ns": start_ns,
        "end_ns": end_ns,
        "token_times_ns": [step.time_ns for step in steps],
        "token_counts": [step.count for step in steps],
        "token_ids": [token for step in steps for token in step.ids],
        "text": "".join(step.text for step in steps),
        "completion": None if completion is None else asdict(completion),
    }


_COMMANDS: dict[str, Callable[[Backend, dict[str, Any]], Answer]] = {
    "load": _load,
    "prepare": _prepare,
    "prepare_round": _prepare_round,
    "generate": _generate,
    "generate_round": _generate_round,
}


def _foreign(error: Exception) -> BackendError:
    said = f"{type(error).__name__}: {error}"
    return OutOfMemory(said) if ran_out_of_memory(said) else BackendError(said)


def _failure(error: Exception) -> Answer:
    if isinstance(error, MemoryError):
        error = OutOfMemory("the engine could not get memory")
    told = error if isinstance(error, FleetmarkError) else _foreign(error)
    return {"failure": {"code": told.code, "message": told.message, "hint": told.hint}}


def _die_with(parent_pid: int) -> None:
    """Have the kernel kill us when the agent dies, and take the out-of-memory kill first."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        # It died before the kernel knew whom to watch.
        os._exit(1)
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    except OSError:
        # Without it the kernel still chooses; most likely the largest process, which is us.
        return


if __name__ == "__main__":
    sys.exit(main())
