"""One suite for every backend: what happens when something goes wrong. Engine and weights are real.

Models that cannot be read, memory that cannot be had, deadlines, cancels and kills; always through
the worker process, as in a job. The working engine is in `test_backend_conformance.py`.
"""

import os
import shutil
import signal
import socket
import threading
from pathlib import Path

import gguf
import psutil
import pytest

from conformance import PROMPT, listening_ports, model_of, options_of
from enginetable import engines_here
from fleetmark_agent.workerprocess import WorkerProcess
from fleetmark_protocol.errors import (
    BackendCrashed,
    BackendError,
    BackendTimeout,
    Canceled,
    ModelNotFound,
    ModelRejected,
    OutOfMemory,
)
from servers import wait_for

pytestmark = pytest.mark.integration

ASK_TIMEOUT_S = 120
LONG_PROMPT = "word " * 3000
"""Its prefill alone takes seconds on any machine: what happens to it happens in the middle."""
CONTEXT_TOKENS = 4096
OOM_CONTEXT_TOKENS = 65536
"""More than 1 GiB of keys and values for this model, which llama.cpp takes when it loads."""


HERE = engines_here()
of_files = pytest.mark.parametrize(
    "engine", [engine for engine in HERE if not engine.remote], ids=str, indirect=True
)


@pytest.fixture(params=HERE, ids=str)
def engine(request):
    return request.param


@pytest.fixture
def model(engine) -> Path:
    return model_of(engine)


@pytest.fixture
def worker(engine, tmp_path):
    made = WorkerProcess(engine.backend, tmp_path / "worker.log")
    yield made
    made.close()


def load(worker, engine, model, context_tokens=CONTEXT_TOKENS):
    options = options_of(engine, context_tokens=context_tokens).model_dump()
    engines = engine.settings().model_dump(mode="json")
    command = {"do": "load", "model": str(model), "options": options, "engines": engines}
    return worker.ask(command, ASK_TIMEOUT_S)


def generate(worker, engine, prompt=PROMPT, tokens=4, timeout_s=ASK_TIMEOUT_S):
    options = options_of(engine, context_tokens=CONTEXT_TOKENS).model_dump()
    command = {"do": "generate", "prompt": prompt, "output_tokens": tokens, "options": options}
    return worker.ask(command, timeout_s)


@pytest.fixture
def loaded(worker, engine, model):
    load(worker, engine, model)
    return worker


@pytest.fixture
def tree(loaded):
    """The worker's processes and the ports they listen on, as they are before the fault."""
    return Tree(loaded.pid)


class Tree:
    def __init__(self, pid):
        self.worker = psutil.Process(pid)
        self.children = self.worker.children(recursive=True)
        every = [self.worker, *self.children]
        self.ports = [port for process in every for port in listening_ports(process.pid)]

    def gone(self):
        return not any(_lives(process) for process in [self.worker, *self.children])

    def closed(self):
        return not any(_answers(port) for port in self.ports)


def _lives(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def truncated(model, directory):
    """A copy of the model whose weights end in the middle."""
    copy = directory / model.name
    if model.is_dir():
        shutil.copytree(model, copy)
        weights = max(copy.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    else:
        shutil.copyfile(model, copy)
        weights = copy
    os.truncate(weights, weights.stat().st_size // 2)
    return copy


def unknown_architecture(directory):
    file = directory / "unknown.gguf"
    writer = gguf.GGUFWriter(file, "nobody_knows")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@of_files
@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 100])
def test_what_is_no_model_is_rejected_and_the_worker_lives(
    worker, engine, model, tmp_path, content
):
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(ModelRejected):
        load(worker, engine, tmp_path / "bad.gguf")
    load(worker, engine, model)
    assert generate(worker, engine)["completion"]["output_tokens"] == 4


@of_files
def test_a_truncated_model_is_rejected(worker, engine, model, tmp_path):
    with pytest.raises(ModelRejected):
        load(worker, engine, truncated(model, tmp_path))


@of_files
def test_a_model_of_an_unknown_architecture_is_rejected(worker, engine, tmp_path):
    with pytest.raises(ModelRejected):
        load(worker, engine, unknown_architecture(tmp_path))


def test_a_model_that_is_not_there_is_told(worker, engine, tmp_path):
    with pytest.raises((ModelRejected, ModelNotFound)):
        load(worker, engine, tmp_path / "none.gguf")


@of_files
def test_nothing_is_generated_without_a_model(worker, engine, tmp_path):
    with pytest.raises(ModelRejected):
        load(worker, engine, unknown_architecture(tmp_path))
    with pytest.raises(BackendError, match="no model"):
        generate(worker, engine)


@of_files
def test_memory_that_cannot_be_had_is_told_as_such(worker, engine, model):
    # Counts what is private and written to, and goes over to what the worker starts.
    limit = (engine.too_few_bytes, engine.too_few_bytes)
    psutil.Process(worker.pid).rlimit(psutil.RLIMIT_DATA, limit)
    with pytest.raises(OutOfMemory):
        load(worker, engine, model, OOM_CONTEXT_TOKENS)


def test_past_its_deadline_the_whole_tree_is_killed(loaded, engine, tree):
    with pytest.raises(BackendTimeout, match=r"0\.5 s"):
        generate(loaded, engine, LONG_PROMPT, 500, timeout_s=0.5)
    wait_for(tree.gone, 10, "the end of the tree")
    wait_for(tree.closed, 10, "its ports")


def test_a_cancel_kills_the_whole_tree(loaded, engine, tree):
    threading.Timer(0.5, loaded.cancel).start()
    with pytest.raises(Canceled):
        generate(loaded, engine, LONG_PROMPT, 500)
    wait_for(tree.gone, 10, "the end of the tree")
    wait_for(tree.closed, 10, "its ports")


def test_a_worker_that_is_killed_leaves_no_server_behind(tree):
    # Nobody is left to clean up: the kernel has to do it.
    tree.worker.send_signal(signal.SIGKILL)
    wait_for(tree.gone, 10, "the end of the tree")
    wait_for(tree.closed, 10, "its ports")


def test_a_killed_engine_is_a_crash_that_says_so(loaded, engine, model, tree):
    """Where the engine is a program of its own the worker outlives it, and loads anew."""
    victims = tree.children or [tree.worker]
    threading.Timer(0.5, lambda: [process.kill() for process in victims]).start()
    with pytest.raises(BackendCrashed, match="SIGKILL"):
        generate(loaded, engine, LONG_PROMPT, 500)
    assert loaded.alive() == bool(tree.children)
    if tree.children:
        load(loaded, engine, model)
        assert generate(loaded, engine)["completion"]["output_tokens"] == 4
