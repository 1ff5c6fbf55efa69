"""How often the kernel has killed for want of memory: what tells such a kill from any other."""

import contextlib
from pathlib import Path


def kernel_oom_kills(proc: Path = Path("/proc")) -> int:
    """Return how many processes the kernel has killed for memory since boot; 0 if unknown.

    Args:
        proc: root of the process file system.
    """
    with contextlib.suppress(OSError), (proc / "vmstat").open(encoding="ascii") as lines:
        for line in lines:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
