"""The worker process: real engine, deadlines, cancels, deaths."""

import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from fleetmark_agent.workerprocess import WorkerProcess
from fleetmark_protocol.errors import (
    BackendCrashed,
    BackendTimeout,
    BackendUnavailable,
    Canceled,
    ModelRejected,
    OutOfMemory,
    PromptTooLong,
)
from fleetmark_protocol.messages import Options
from servers import wait_for

pytestmark = pytest.mark.integration

OPTIONS = Options(threads=1, context_tokens=4096).model_dump()


def load(model):
    return {"do": "load", "model": str(model), "options": OPTIONS}


def generate(tokens=8, prompt="The sun"):
    return {"do": "generate", "prompt": prompt, "output_tokens": tokens, "options": OPTIONS}


def load_and_generate(worker, model):
    worker.ask(load(model), 60)
    worker.ask(generate(4000), 60)


@pytest.fixture
def worker(tmp_path):
    made = WorkerProcess("xllamacpp", tmp_path / "worker.log")
    yield made
    made.close()


@pytest.fixture
def loaded(worker, model_file):
    worker.ask(load(model_file), 60)
    return worker


def test_an_answer_has_a_time_and_an_id_for_each_token(loaded):
    answer = loaded.ask(generate(8), 60)
    times = [answer["start_ns"], *answer["token_times_ns"], answer["end_ns"]]
    assert times == sorted(times)
    assert len(answer["token_times_ns"]) == len(answer["token_ids"]) == 8
    assert answer["completion"]["output_tokens"] == 8
    assert answer["end_ns"] <= time.perf_counter_ns(), "one clock for worker and agent"


def test_what_the_engine_refuses_is_typed_and_the_worker_lives(loaded):
    with pytest.raises(PromptTooLong):
        loaded.ask(generate(prompt="word " * 5000), 60)
    assert loaded.alive()
    assert loaded.ask(generate(2), 60)["completion"]["output_tokens"] == 2


def test_a_model_that_is_not_there_and_a_backend_that_is_not_there_are_typed(worker, tmp_path):
    with pytest.raises(ModelRejected):
        worker.ask(load(tmp_path / "none.gguf"), 60)
    other = WorkerProcess("no_such_backend", tmp_path / "other.log")
    with pytest.raises(BackendUnavailable, match="no_such_backend"):
        other.ask(load(tmp_path / "none.gguf"), 60)
    other.close()


def test_past_its_deadline_it_is_killed(loaded):
    started_s = time.monotonic()
    with pytest.raises(BackendTimeout, match=r"0\.5 s"):
        loaded.ask(generate(4000), 0.5)
    assert time.monotonic() - started_s < 5
    assert not psutil.pid_exists(loaded.pid)


def test_a_cancel_from_another_thread_kills_it(loaded):
    threading.Timer(0.3, loaded.cancel).start()
    with pytest.raises(Canceled):
        loaded.ask(generate(4000), 60)
    assert not psutil.pid_exists(loaded.pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_death_is_told_with_its_signal(loaded, number):
    threading.Timer(0.3, psutil.Process(loaded.pid).send_signal, [number]).start()
    with pytest.raises(BackendCrashed, match=number.name):
        loaded.ask(generate(4000), 60)


def test_a_tree_that_holds_too_much_memory_is_killed(model_file, tmp_path):
    def too_large(pid):
        held = psutil.Process(pid).memory_info().rss
        return f"held {held} bytes" if held > 100 * 2**20 else None

    worker = WorkerProcess("xllamacpp", tmp_path / "w.log", too_large)
    with pytest.raises(OutOfMemory, match="held"):
        load_and_generate(worker, model_file)
    assert not psutil.pid_exists(worker.pid)
    worker.close()


def test_close_ends_it_and_may_be_called_twice(loaded):
    loaded.close()
    assert not psutil.pid_exists(loaded.pid)
    loaded.close()


PARENT = """
import sys, time
from pathlib import Path
from fleetmark_agent.workerprocess import WorkerProcess
worker = WorkerProcess("xllamacpp", Path(sys.argv[1]))
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_it_dies_with_an_agent_that_is_killed(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "w.log")], stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    # Time for it to tell the kernel whom to watch.
    time.sleep(1)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not psutil.pid_exists(pid), 10, "the worker's death")
