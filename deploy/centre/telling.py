"""How `setup_centre.py` speaks with the operator."""

import sys


class Wrong(Exception):
    """What the operator must mend."""


def say(text: str) -> None:
    """Tell the operator; never a secret."""
    print(text, file=sys.stderr)
