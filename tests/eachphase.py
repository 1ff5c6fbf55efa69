"""A fleet of one device whose job can be met in any phase, from the download to the answer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engines import MODEL_SHA256, smollm2
from fakes.fake_hub import FakeHub
from fakes.fake_llama_server import write_llama_server
from fakes.fake_sysfs import FakeSysfs
from fleet import Fleet
from servers import Mosquitto

HOT, COOL = 80_000, 40_000
"""Thousandths of a degree."""


class PhasedFleet(Fleet):
    """A fleet of the device pi-sim, and what tests turn to hold its job in a phase.

    Attributes:
        models: the directory of its store, with the real model in it.
        sysfs: its sensors.
        server: where its llama-server lies.
        toml: its settings.
    """

    def __init__(self, directory: Path, broker: Mosquitto, hub: FakeHub) -> None:
        """Make the device's files; nothing runs yet.

        Args:
            directory: for all of its files.
            broker: a running one.
            hub: where the device downloads from.
        """
        super().__init__(directory, broker)
        self.models = directory / "models"
        self.models.mkdir()
        os.link(smollm2(), self.models / "smollm2.gguf")
        self.sysfs = FakeSysfs(directory / "root")
        self.sysfs.zone(0, "cpu-thermal", COOL)
        self.server = directory / "server"
        self.server.mkdir()
        write_llama_server(self.server)
        self.toml = (
            "[models]\n"
            f"dir = '{self.models}'\n"
            f"hf_endpoint = '{hub.base}'\n"
            f"[telemetry]\nsensor_root = '{self.sysfs.root}'\ninterval_s = 0.2\n"
            f"[engines.llama_server]\nexecutable = '{self.server / 'llama-server'}'\n"
        )


@contextmanager
def phased_fleet(directory: Path, hub: FakeHub, settings: str = "") -> Iterator[PhasedFleet]:
    """Yield such a fleet, running; `settings` are the collector's, beyond the usual."""
    broker = Mosquitto(directory).start()
    fleet = PhasedFleet(directory, broker, hub)
    try:
        if settings:
            fleet.settings(settings)
        fleet.start_collector()
        fleet.start_agent("pi-sim", fleet.toml)
        fleet.wait_for_devices("pi-sim")
        yield fleet
    finally:
        fleet.close()
        broker.kill()


def submit(fleet: Fleet, *, backend: str, ref: str = "path:smollm2.gguf", **changes: Any) -> str:
    """Submit a campaign of one job and return its id.

    Args:
        fleet: as above.
        backend: of its only cell.
        ref: where its model is from.
        changes: `model`, `options` and `matrix` add to those of the cell; the rest is of the file.
    """
    model = {"name": "m", "ref": ref, "sha256": MODEL_SHA256, **changes.pop("model", {})}
    matrix = {
        "backend": [backend],
        "model": [model],
        "options": {"threads": 1, "context_tokens": 256, **changes.pop("options", {})},
        **changes.pop("matrix", {}),
    }
    return fleet.submit(fleet.write_campaign(matrix=matrix, **changes))
