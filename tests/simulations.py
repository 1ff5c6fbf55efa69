"""`fleetmark simulate` for tests: run beside a fleet, its account read, the store looked into."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from commands import Command, fleetmark


class Simulation:
    """A running simulation; what it was told last are flags that count for all of a test's."""

    def __init__(self, directory: Path, port: int, *flags: object, env=None) -> None:
        self.command: Command = fleetmark(
            *("simulate", "--broker-port", port, "--ramp", 1, "--json", *flags),
            log=directory / f"simulate-{len(list(directory.glob('simulate-*')))}.log",
            env=env,
        )

    def account(self, timeout_s: float = 90) -> dict:
        """Wait for the end; return the account, of which nothing may be missing."""
        code = self.command.process.wait(timeout_s)
        said = self.command.output()
        assert code == 0, said
        account = json.loads(said[said.index("\n{\n") :] if not said.startswith("{") else said)
        made = account["made"] + account["carried"]
        assert made == account["acknowledged"] + account["left"] + account["thinned"], account
        assert account["unaccounted"] == 0
        return account


def stored(data_dir: Path, kind: str) -> dict[tuple[str, str], list[int]]:
    """Return the sequence numbers of a kind in the store, by device and epoch."""
    found: dict[tuple[str, str], list[int]] = {}
    with closing(sqlite3.connect(data_dir / "store.db")) as store:
        for device, epoch, seq in store.execute(
            f"SELECT device, epoch, seq FROM {kind} JOIN source ON source.id = {kind}.source"
        ):
            found.setdefault((device, epoch), []).append(seq)
    return found


def assert_complete(data_dir: Path, devices: int, samples: int) -> None:
    """Every device has one epoch, and all of its samples are in the store, each once."""
    found = stored(data_dir, "telemetry")
    assert len(found) == devices
    assert {len(seqs) for seqs in found.values()} == {samples}
    events = stored(data_dir, "event")
    for key, seqs in found.items():
        # What a device made is numbered without gaps: nothing else was, and nothing is missing.
        every = sorted(seqs + events[key])
        assert every == list(range(1, len(every) + 1)), key
