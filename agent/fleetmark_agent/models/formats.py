"""Says of what format a model is, by its content, and what it holds; parsed in a child process.

Run as a program (`python -m fleetmark_agent.models.formats PATH`) it is that child: what strangers
wrote can neither harm the agent nor take its memory.
"""

import sys
from pathlib import Path

from pydantic import ValidationError

from fleetmark_agent.models.children import (
    REFUSED,
    SINGLE_THREAD,
    ChildTimeout,
    limit_memory,
    run_child,
)
from fleetmark_agent.models.facts import ModelFacts
from fleetmark_protocol.errors import FleetmarkError, ModelNotFound, ModelRejected
from fleetmark_protocol.values import clip

TIMEOUT_S = 120.0
MAX_MEMORY_BYTES = 1 << 30


def inspect(path: Path) -> ModelFacts:
    """Say what a model is and holds.

    Raises:
        ModelRejected: it is none that can be used; says what is wrong.
    """
    command = [sys.executable, "-P", "-m", "fleetmark_agent.models.formats", str(path.absolute())]
    try:
        done = run_child(command, timeout_s=TIMEOUT_S, env=SINGLE_THREAD)
    except ChildTimeout:
        raise ModelRejected(f"{path.name}: not understood within {TIMEOUT_S:g} s") from None
    if done.code == REFUSED:
        raise ModelRejected(clip(done.output.strip()))
    try:
        if done.code != 0:
            raise ValueError(done.errors)
        return ModelFacts.model_validate_json(done.output)
    except (ValueError, ValidationError) as error:
        last = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise ModelRejected(f"{path.name}: its reader ended with {done.code}: {last}") from error


def read_model(path: Path) -> ModelFacts:
    """Say what a model is and holds; for the child.

    Raises:
        ModelNotFound: nothing is there.
        ModelRejected: it is none that can be used; says what is wrong.
    """
    # Each reader brings what only it needs.
    if path.is_dir():
        from fleetmark_agent.models.safetensors_dir import read_safetensors

        return read_safetensors(path)
    try:
        with path.open("rb") as file:
            magic = file.read(9)
    except FileNotFoundError as error:
        raise ModelNotFound(f"no file {path.name}") from error
    from fleetmark_agent.models import ggml_file, gguf_file, llamafile_file

    if magic.startswith(llamafile_file.PROGRAM_MAGICS):
        return llamafile_file.read_llamafile(path)
    if magic[:4] in ggml_file.MAGICS:
        return ggml_file.read_ggml(path)
    if magic[4:] == b"\0\0\0\0{":  # a length, and JSON
        raise ModelRejected(
            f"{path.name}: weights alone make no model",
            hint="add the whole directory with its config.json and tokenizer",
        )
    return gguf_file.read_gguf(path)


def main() -> int:
    """Be the child: print what the model holds, or what is wrong with it."""
    limit_memory(MAX_MEMORY_BYTES)
    try:
        facts = read_model(Path(sys.argv[1]))
    except FleetmarkError as error:
        sys.stdout.write(error.message)
        return REFUSED
    sys.stdout.write(facts.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
