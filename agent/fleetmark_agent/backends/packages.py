"""Whether a Python package is installed, found out without importing it."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from fleetmark_agent.backends.base import Availability


def probe_package(distribution: str, module: str, extra: str) -> Availability:
    """Return the availability of an engine that comes as a Python package.

    Args:
        distribution: its name for pip.
        module: what is imported.
        extra: fleetmark's extra that installs it.
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
    return Availability(available=True, version=found)
