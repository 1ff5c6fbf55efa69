"""Runs a collector as if it were of another version: `collectorofversion.py VERSION ARGUMENTS...`.

For tests alone, as `agentofversion.py`; it is the collector of today in all else.
"""

import sys

from fleetmark_protocol import version

if __name__ == "__main__":
    # Before anything else reads it.
    version.__version__ = sys.argv.pop(1)
    from fleetmark_collector.cli.main import main

    main()
