"""Whether a Python package is installed, and what it was built with, without importing it here."""

import re
import signal
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from fleetmark_agent.backends.base import Availability

CHILD_TIMEOUT_S = 20.0
"""Long enough for an import from a Raspberry Pi's SD card."""

_SWITCHED_ON = re.compile(r"\b([A-Za-z]\w*) = 1(?![\w.,])")
_IMPORTED = "imported"


def probe_package(
    distribution: str, module: str, extra: str, *, features_code: str | None = None
) -> Availability:
    """Return the availability of an engine that comes as a Python package.

    Args:
        distribution: its name for pip.
        module: what is imported.
        extra: fleetmark's extra that installs it.
        features_code: a statement that prints the engine's build features as `NAME = 1 | ...`,
            for an engine that is quick to import. It runs after `import module` in a process of
            its own: the agent's memory does not grow, and an engine that cannot be imported on
            this machine is found out before a job is. Asked once for each version.
    """
    try:
        found = version(distribution)
    except PackageNotFoundError:
        found = None
    if found is None or find_spec(module) is None:
        return Availability(
            available=False,
            reason=f"the Python package {distribution} is not installed",
            hint=f"pip install 'fleetmark[{extra}]'",
        )
    if features_code is None:
        return Availability(available=True, version=found)
    reason, features = _ask_child(distribution, found, module, features_code)
    if reason is not None:
        return Availability(
            available=False,
            reason=f"the Python package {distribution} {found} cannot be imported: {reason}",
            hint=f"pip install --force-reinstall --no-cache-dir {distribution}=={found}"
            " builds or fetches it anew for this machine",
        )
    return Availability(available=True, version=found, features=features)


def parse_features(said: str) -> tuple[str, ...]:
    """Return the names that are 1 in text such as `CPU : AVX = 1 | AVX2 = 0 |`, in order; pure."""
    return tuple(dict.fromkeys(_SWITCHED_ON.findall(said)))


@lru_cache(maxsize=32)
def _ask_child(
    _distribution: str, _version: str, module: str, features_code: str
) -> tuple[str | None, tuple[str, ...]]:
    """Return why a module cannot be imported, or None and what it was built with."""
    code = f"import {module}\nprint({_IMPORTED!r}, flush=True)\n{features_code}"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        # A slow machine is no reason to refuse jobs; only its features stay unknown.
        return None, ()
    said = done.stdout.decode("utf-8", "replace")
    if said.startswith(_IMPORTED):
        return None, parse_features(said) if done.returncode == 0 else ()
    if done.returncode < 0:
        return f"it is killed by {signal.Signals(-done.returncode).name}", ()
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return " ".join(last) or f"exit code {done.returncode}", ()
