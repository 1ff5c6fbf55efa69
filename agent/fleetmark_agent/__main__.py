"""`python -m fleetmark_agent`: the same as the installed command."""

from fleetmark_agent.cli import main

main()
