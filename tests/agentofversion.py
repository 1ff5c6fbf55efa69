"""Runs an agent as if it were of another version: `python agentofversion.py VERSION ARGUMENTS...`.

For tests alone; nothing in the product can have it pretend. It is the agent of today in all else.
"""

import sys

from fleetmark_protocol import version

if __name__ == "__main__":
    # Before anything else reads it.
    version.__version__ = sys.argv.pop(1)
    from fleetmark_agent.cli.main import main

    main()
