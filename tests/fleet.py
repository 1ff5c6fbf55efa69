"""A whole fleet for tests: real broker, collector and agents as processes, driven by the CLI."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from engines import MODEL_REF, MODEL_SHA256, model_store
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.config import load_settings
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.sinks.stores import open_reader
from servers import Mosquitto, wait_for


class Fleet:
    """Everything lives below one directory; `close` leaves no process behind."""

    def __init__(self, directory: Path, broker: Mosquitto) -> None:
        self.directory = directory
        self.broker = broker
        self.data_dir = directory / "data"
        self.config_file: Path | None = None
        self.centre_ahead_s = 0
        """By how much the clock of collectors and commands that are started is ahead."""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    # --- processes -----------------------------------------------------------------------------

    def settings(self, toml: str) -> None:
        """Let collector and operator use these settings besides their flags."""
        self.config_file = self.directory / "collector.toml"
        self.config_file.write_text(toml, "utf-8")

    @property
    def _config(self) -> list[str]:
        return ["--config", str(self.config_file)] if self.config_file else []

    def start_collector(
        self, *flags: str, name: str = "collector", version: str | None = None
    ) -> None:
        """Start `fleetmark collect`; a second one, of another name, waits to take over.

        With a `version` it is as if it were of that one.
        """
        arguments = ["collect", "--data-dir", str(self.data_dir), *self._config, *flags]
        arguments += ["--broker-host", "127.0.0.1", "--broker-port", str(self.broker.port)]
        if version is None:
            self._launch(name, _by_clock(self.centre_ahead_s, "fleetmark_collector", arguments))
        else:
            pretender = str(Path(__file__).with_name("collectorofversion.py"))
            self._launch(name, [pretender, version, *arguments])

    def start_agent(
        self, device: str, toml: str = "", version: str | None = None, ahead_s: int = 0
    ) -> None:
        """Start an agent, which shares the tests' model store; `toml` is added to its settings.

        With a `version` it is as if it were of that one; its clock is `ahead_s` ahead.
        """
        config = self.directory / f"{device}.toml"
        top, _, tables = toml.partition("[")
        config.write_text(
            f"device_id = {json.dumps(device)}\n"
            'tags = ["simulated"]\n'
            f"state_dir = {json.dumps(str(self.state_dir(device)))}\n"
            f"{top}\n"
            f"broker = {{ host = '127.0.0.1', port = {self.broker.port} }}\n"
            + ("" if "[models]" in toml else f"[models]\ndir = {json.dumps(str(model_store()))}\n")
            + (f"[{tables}" if tables else ""),
            "utf-8",
        )
        arguments = ["run", "--config", str(config)]
        if version is None:
            self._launch(device, _by_clock(ahead_s, "fleetmark_agent", arguments))
        else:
            pretender = str(Path(__file__).with_name("agentofversion.py"))
            self._launch(device, [pretender, version, *arguments])

    def state_dir(self, device: str) -> Path:
        """Return where an agent keeps its outbox."""
        return self.directory / f"state-{device}"

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a process and wait for its end; return its exit code."""
        process = self._processes.pop(name)
        process.send_signal(number)
        return process.wait(30)

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a process that lives on."""
        self._processes[name].send_signal(number)

    def names(self) -> list[str]:
        """Return the names of the processes that were started and not killed."""
        return list(self._processes)

    def pid(self, name: str) -> int:
        """Return a process's id."""
        return self._processes[name].pid

    def log(self, name: str) -> str:
        """Return what a process has logged."""
        return (self.directory / f"{name}.log").read_text("utf-8", "replace")

    def close(self) -> None:
        """End all processes."""
        for name in reversed(list(self._processes)):
            self._processes[name].send_signal(signal.SIGTERM)
            # One that a test has stopped would not hear it.
            self._processes[name].send_signal(signal.SIGCONT)
        for name in list(self._processes):
            try:
                self._processes[name].wait(20)
            except subprocess.TimeoutExpired:
                self.kill(name)

    def _launch(self, name: str, arguments: list[str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=log,
                stderr=log,
                cwd=self.directory,
                # A lock of our own: an agent that measures elsewhere on this machine is no matter.
                env={
                    **os.environ,
                    "FLEETMARK_RUNNER__LOCK_FILE": str(self.directory / "bench.lock"),
                },
            )

    # --- the operator --------------------------------------------------------------------------

    def cli(self, *arguments: str, timeout_s: float = 200) -> subprocess.CompletedProcess[str]:
        """Run a `fleetmark` command in this fleet's data directory."""
        return subprocess.run(
            [sys.executable, *_by_clock(self.centre_ahead_s, "fleetmark_collector", arguments)]
            + ["--data-dir", str(self.data_dir), *self._config],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**os.environ, "COLUMNS": "160"},
            cwd=self.directory,
        )

    def write_campaign(
        self, *, repetitions: int = 3, name: str = "test", **changes: object
    ) -> Path:
        """Write a campaign file over all simulated devices; `changes` replace top-level keys."""
        campaign: dict[str, object] = {
            "version": 1,
            "name": name,
            "targets": {"tags": ["simulated"]},
            "matrix": {
                "backend": ["xllamacpp"],
                "model": [{"name": "smollm2-135m", "ref": MODEL_REF, "sha256": MODEL_SHA256}],
                "options": {"threads": 1, "context_tokens": 256},
            },
            "workloads": [
                {
                    "name": "single",
                    "kind": "single",
                    "prompt": "The capital of Italy is",
                    "output_tokens": 24,
                    "warmup": 1,
                    "repetitions": repetitions,
                }
            ],
            "quiet_gate": {"cpu_percent_max": 100, "timeout_s": 1},
            **changes,
        }
        file = self.directory / f"{name}.yaml"
        file.write_text(json.dumps(campaign), "utf-8")
        return file

    def submit(self, file: Path) -> str:
        """Start a campaign without watching it; return its id."""
        done = self.cli("campaign", "run", str(file), "--detach")
        assert done.returncode == 0, done.stderr
        with closing(CampaignStore(self.data_dir / "state.db")) as store:
            return store.newest().campaign_id

    def status(self, campaign_id: str | None = None) -> dict[str, object]:
        """Return `campaign status --json`."""
        done = self.cli("campaign", "status", *([campaign_id] if campaign_id else []), "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def wait_for_devices(self, *devices: str) -> None:
        """Wait until these devices are online with their inventory."""

        def online() -> set[str]:
            if not (self.data_dir / "state.db").exists():
                return set()
            with closing(DeviceRegistry(self.data_dir / "state.db")) as registry:
                found = [one for one in registry.list() if one.online and one.inventory]
            return {one.device for one in found if one.inventory.backends}

        wait_for(lambda: set(devices) <= online(), 30, f"{devices} online")

    def wait_for_end(self, campaign_id: str, timeout_s: float = 120) -> str:
        """Wait until a campaign is terminal; return its state.

        Read from the centre's file: to ask by command again and again costs more than all else.
        """
        with closing(CampaignStore(self.data_dir / "state.db")) as store:
            wait_for(
                lambda: store.campaign(campaign_id).state.terminal,
                timeout_s,
                f"the end of {campaign_id}",
            )
            return str(store.campaign(campaign_id).state)

    # --- the store -----------------------------------------------------------------------------

    def trials(self, campaign_id: str) -> list[object]:
        """Return the stored trials of a campaign."""
        settings = load_settings(self.config_file, {"data_dir": self.data_dir})
        reader = open_reader(settings)
        try:
            return list(reader.trials(campaign_id))
        finally:
            reader.close()

    def stored_trials(self, campaign_id: str) -> int:
        """Return how many trials of a campaign the store holds; 0 before there is a store."""
        return len(self.trials(campaign_id)) if (self.data_dir / "store.db").exists() else 0

    def assert_each_trial_once(self, campaign_id: str, planned: int) -> None:
        """Every planned trial is in the store exactly once, under a sequence number of its own."""
        stored = self.trials(campaign_id)
        ids = Counter(item.record.trial_id for item in stored)
        assert len(ids) == planned, sorted(ids)
        assert set(ids.values()) == {1}, ids
        seqs = {(item.fleet, item.device, item.epoch, item.seq) for item in stored}
        assert len(seqs) == planned


def _by_clock(ahead_s: int, module: str, arguments: Sequence[str]) -> list[str]:
    if not ahead_s:
        return ["-m", module, *arguments]
    return [str(Path(__file__).with_name("atclock.py")), str(ahead_s), module, *arguments]
