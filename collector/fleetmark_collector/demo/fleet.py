"""The story of the demo: set up, run the campaign, report, stop everything."""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fleetmark_collector.config import CollectorSettings, load_settings
from fleetmark_collector.demo.engines import (
    INSTALLED,
    compared,
    models,
    not_compared,
    write_campaign,
)
from fleetmark_collector.demo.processes import Processes, wait_until_listening
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ProcessFailed

if TYPE_CHECKING:
    from rich.console import Console

CAMPAIGN = Path(__file__).parent / "demo.yaml"
AGENTS = {"pi-sim": "pi", "ec2-sim": "ec2"}
HOST = "127.0.0.1"
AGENT_MODULE = "fleetmark_agent"
COLLECTOR_MODULE = "fleetmark_collector"


class Demo:
    """One run of the demo in one directory; a second run in it adds another campaign."""

    def __init__(
        self, directory: Path, console: "Console", *, mosquitto: bool, backends: str = INSTALLED
    ) -> None:
        """Prepare.

        Args:
            directory: takes data, logs and reports.
            console: shows what is happening.
            mosquitto: prefer an installed Mosquitto to the embedded broker.
            backends: names with commas between them, or `installed`.
        """
        self._directory = directory
        self._campaign = directory / "campaign.yaml"
        self._backends = backends
        self._console = console
        self._mosquitto = mosquitto
        self._processes = Processes(directory / "logs")

    def run(self) -> int:
        """Run it; return the exit code: 0 done, 1 the campaign failed, 130 interrupted."""
        logs.configure("warning")
        try:
            return self._story()
        except KeyboardInterrupt:
            self._console.print("\nInterrupted; stopping broker, collector and agents ...")
            return 130
        finally:
            self._processes.stop()
            self._console.print(f"Nothing is left running. Data and logs: {self._directory}")

    def _say(self, text: str) -> None:
        from rich.markup import escape

        self._console.print(f"[bold]>[/bold] {escape(text)}", highlight=False)

    def _story(self) -> int:
        from fleetmark_collector.campaigns.submit import submit_campaign
        from fleetmark_collector.campaigns.watch import watch_campaign

        self._directory.mkdir(parents=True, exist_ok=True)
        write_campaign(CAMPAIGN, self._campaign, self._backends)
        configs = self._write_agent_configs(port := _free_port())
        settings = load_settings(
            None,
            {"data_dir": self._directory / "data", "broker": {"host": HOST, "port": port}},
        )
        self._start_centre(settings, port)
        for device, config in configs.items():
            self._say(f"starting agent {device} (this machine, under another name)")
            self._processes.start(device, AGENT_MODULE, ["run", "--config", str(config)])
        self._wait_for_devices(settings)
        self._prepare(settings, next(iter(configs.values())))
        campaign_id, plan = submit_campaign(settings, self._campaign)
        self._say(f"campaign {campaign_id}: {len(plan.jobs)} jobs")
        state = watch_campaign(settings, campaign_id, self._console)
        self._report(settings, campaign_id)
        return 0 if state == "SUCCEEDED" else 1

    def _write_agent_configs(self, port: int) -> dict[str, Path]:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        configs = {}
        for device, tag in AGENTS.items():
            config = self._directory / f"{device}.toml"
            # JSON strings are TOML strings too, whatever is in a path.
            lines = [
                "# Made by `fleetmark demo` at each start.",
                f"device_id = {json.dumps(device)}",
                'fleet = "demo"',
                f'tags = [{json.dumps(tag)}, "simulated"]',
                f"state_dir = {json.dumps(str(self._directory / device))}",
                "[broker]",
                f"host = {json.dumps(HOST)}",
                f"port = {port}",
                "[models]",
                f"dir = {json.dumps(str(cache / 'fleetmark' / 'models'))}",
            ]
            config.write_text("\n".join(lines) + "\n", "utf-8")
            configs[device] = config
        return configs

    def _prepare(self, settings: CollectorSettings, config: Path) -> None:
        """Say what will be compared, and fetch and convert: beside a trial it would disturb it."""
        from fleetmark_collector.campaigns.file import load_campaign
        from fleetmark_collector.campaigns.submit import plan_campaign

        plan = plan_campaign(settings, load_campaign(self._campaign), time.time_ns())
        for line in not_compared(plan):
            self._say(f"not compared: {line}")
        plan.check()
        self._say(f"compared: {compared(plan)}")
        for ref, sha256, quantization in models(plan):
            source = [ref, "--config", str(config)]
            source += [] if sha256 is None else ["--sha256", sha256]
            source += [] if quantization is None else ["--quantization", quantization]
            self._say(f"model {ref}, {quantization or 'as it is'}: making it, unless it is there")
            self._agent(["model", "add", *source])

    def _agent(self, arguments: list[str]) -> None:
        with self._console.status("this takes a minute the first time"):
            self._processes.run("models", AGENT_MODULE, arguments)

    def _start_centre(self, settings: CollectorSettings, port: int) -> None:
        which = [] if self._mosquitto else ["--embedded"]
        self._say(f"starting the broker on {HOST}:{port}")
        data_dir = str(settings.data_dir)
        self._processes.start(
            "broker",
            COLLECTOR_MODULE,
            ["broker", "--host", HOST, "--port", str(port), "--data-dir", data_dir, *which],
        )
        wait_until_listening(HOST, port, self._processes, 30)
        self._say(f"starting the collector; it writes to {settings.store_file}")
        self._processes.start(
            "collector",
            COLLECTOR_MODULE,
            # Nobody watches a demo, and the usual port may be another collector's.
            ["collect", "--data-dir", data_dir, "--http-listen", ""]
            + ["--broker-host", HOST, "--broker-port", str(port)],
        )

    def _wait_for_devices(self, settings: CollectorSettings) -> None:
        def online() -> bool:
            registry = DeviceRegistry(settings.state_file)
            try:
                found = {d.device for d in registry.list() if d.online and d.inventory is not None}
            finally:
                registry.close()
            return set(AGENTS) <= found

        self._wait(online, 60, "the agents to come online")

    def _wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline_s = time.monotonic() + timeout_s
        with self._console.status(f"waiting for {what}"):
            while not condition():
                self._processes.check()
                if time.monotonic() > deadline_s:
                    raise ProcessFailed(
                        f"waited {timeout_s:g} s in vain for {what}",
                        hint=f"the logs are in {self._directory / 'logs'}",
                    )
                time.sleep(0.2)

    def _report(self, settings: CollectorSettings, campaign_id: str) -> None:
        from fleetmark_collector.cli.report import report

        base = self._directory / "reports" / campaign_id
        base.parent.mkdir(exist_ok=True)
        html, csv, json_file = (base.with_suffix(end) for end in (".html", ".csv", ".json"))
        report(campaign_id, data_dir=settings.data_dir)
        report(campaign_id, html=html, csv=csv, json=json_file, data_dir=settings.data_dir)
        self._say(f"figures for a program: {csv} and {json_file}")
        self._say(f"open the report with plots in a browser: {html}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
