"""The version of the wheel and of the wire schema, and which versions work together."""

import re
from functools import lru_cache

__version__ = "0.1.0"

SCHEMA_VERSION = 1
"""Version of the wire contract; part of every topic (`fleetmark/v1/...`)."""

SIMULATED_VERSION = "simulated"
"""`backend_version` of what `fleetmark simulate` made up: no engine ran."""

MINORS_APART = 1

FIRST_VERSION = "0.1.0"
"""Of who tells none: what spoke before versions were said is as good as this one."""

_VERSION = re.compile(
    r"([0-9]{1,6})\.([0-9]{1,6})(?:(?:a|b|rc|[.+-])[0-9A-Za-z.+-]{0,100})?", re.ASCII
)


def compatible(mine: str, theirs: str) -> bool:
    """Whether agent and collector of these versions work together.

    They do with the same major version and minor versions at most one apart. What is no version
    goes with nothing.
    """
    ours, others = _numbers(mine), _numbers(theirs)
    if ours is None or others is None:
        return False
    return ours[0] == others[0] and abs(ours[1] - others[1]) <= MINORS_APART


@lru_cache(maxsize=1000)
def objection(*, agent: str | None, collector: str | None) -> str | None:
    """Return why an agent and a collector do not work together, and which one to upgrade.

    Args:
        agent: its version; None where it tells none, which is read as `FIRST_VERSION`.
        collector: likewise.

    Returns:
        A sentence for people, fit for a log; None where the two go together.
    """
    agent = FIRST_VERSION if agent is None else agent
    collector = FIRST_VERSION if collector is None else collector
    for who, version in (("agent", agent), ("collector", collector)):
        if _numbers(version) is None:
            said = f"has no version we know: {version!a}"
            return f"the {who} {said[:120]}; upgrade the {who}"
    if compatible(agent, collector):
        return None
    older = "agent" if (_numbers(agent) or ()) < (_numbers(collector) or ()) else "collector"
    return (
        f"agent {_short(agent)} and collector {_short(collector)} do not work together: they may"
        f" be one minor version apart, no more; upgrade the {older}"
    )


@lru_cache(maxsize=1000)
def _numbers(version: str) -> tuple[int, int] | None:
    found = _VERSION.fullmatch(version)
    return None if found is None else (int(found[1]), int(found[2]))


def _short(version: str) -> str:
    """Return a version as a log may hold it: it may have come from the wire."""
    return ascii(version[:40])[1:-1]
