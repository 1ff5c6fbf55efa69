"""The campaign commands as an operator gives them, in this process, on data of a test's own."""

import time
from pathlib import Path

from typer.testing import CliRunner

from fakes.fake_fleet import CAMPAIGN, EPOCH, START_NS, make_inventory
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.cli.campaign import app
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_protocol import codec, topics
from fleetmark_protocol.messages import Status
from fleetmark_protocol.version import __version__


class Cli:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.file = directory / "sizes.yaml"
        self.file.write_text(CAMPAIGN)

    def __call__(self, *args: str, data: bool = True):
        where = ["--data-dir", str(self.data_dir)] if data else []
        return CliRunner().invoke(app, [*args, *where], env={"COLUMNS": "200"})

    def add_device(self, device: str, **fields) -> None:
        registry = DeviceRegistry(self.data_dir / "state.db")
        status = Status(online=True, boot_id=EPOCH, agent_version=__version__, started_ns=START_NS)
        registry.receive(topics.topic("lab", device, "status"), codec.encode(status))
        inventory = codec.encode(make_inventory(**fields))
        registry.receive(topics.topic("lab", device, "inventory"), inventory)
        registry.flush()
        registry.close()

    def beat(self) -> None:
        registry = DeviceRegistry(self.data_dir / "state.db")
        registry.beat(time.time_ns(), {})
        registry.close()

    def store(self) -> CampaignStore:
        return CampaignStore(self.data_dir / "state.db")
