"""`python -m fleetmark_collector`: the same as the installed command."""

from fleetmark_collector.cli import main

main()
