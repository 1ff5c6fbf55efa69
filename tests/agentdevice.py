"""An agent's parts on one device without a link, and assignments for them: for tests of jobs."""

import json
from contextlib import nullcontext
from pathlib import Path

from engines import MODEL_REF, MODEL_SHA256, model_store
from fleetmark_agent.backends import registry
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.database import Database
from fleetmark_agent.engine import Tools
from fleetmark_agent.joblog import JobLog
from fleetmark_agent.models.store import ModelStore
from fleetmark_agent.outbox import Outbox
from fleetmark_agent.recorder import Recorder
from fleetmark_agent.runner import Runner
from fleetmark_agent.telemetry.sampler import Sampler
from fleetmark_agent.telemetry.sensors import all_sensors
from fleetmark_protocol.messages import Assignment
from servers import wait_for


class Device:
    """An agent without a link: what it would send is read from its outbox."""

    def __init__(
        self,
        directory: Path,
        ram_bytes: int | None = None,
        engines=None,
        sources=None,
        sensor_root=Path("/"),
        models_dir=None,
        **runner_settings,
    ) -> None:
        models_dir = models_dir or model_store()
        self.settings = AgentSettings(
            device_id="d",
            state_dir=directory,
            models={"dir": models_dir, **({"allow_sources": sources} if sources else {})},
            runner={"lock_file": directory.parent / "lock", **runner_settings},
            engines=engines or {},
        )
        self.stopping = False
        self.database = Database(self.settings.outbox_file)
        self.outbox = Outbox(self.database, 10**8)
        self.joblog = JobLog(self.database)
        recorder = Recorder(self.database, self.outbox, self.joblog, lambda: self.stopping)
        self.sampler = Sampler(all_sensors(sensor_root, directory), lambda *_: None, 0.2, 0.2)
        self.sampler.start()
        tools = Tools(self.sampler, nullcontext, directory / "logs", None, self.settings.engines)
        models = ModelStore.from_settings(self.settings)
        if ram_bytes is not None:
            models = ModelStore(
                model_store(), self.settings.models, mem_available_bytes=lambda: ram_bytes
            )
        self.runner = Runner(
            self.settings,
            tools,
            recorder,
            models,
            create=lambda name: registry.create(name, self.settings.engines),
            on_change=lambda: None,
        )

    def stop(self) -> None:
        self.stopping = True
        self.runner.stop()
        self.sampler.stop()
        self.database.close()

    def records(self, kind: str) -> list[dict]:
        every = [json.loads(body) for _, body in self.outbox.batch(10_000, 10**9)]
        return [record for record in every if record["kind"] == kind]

    def states(self, job_id: str) -> list[str]:
        return [job["state"] for job in self.records("job") if job["job_id"] == job_id]

    def wait_for_end(self, job_id: str) -> dict:
        def ended():
            entry = self.joblog.get(job_id)
            return entry is not None and entry.state.terminal

        wait_for(ended, 60, f"the end of {job_id}")
        return [job for job in self.records("job") if job["job_id"] == job_id][-1]


def assignment(number=0, desired="run", repetitions=2, **job):
    return Assignment.model_validate(
        {
            "desired": desired,
            "job": {
                "job_id": f"c.d.{number:03d}",
                "campaign_id": "c",
                "backend": "xllamacpp",
                "model": {"name": "smollm2", "ref": MODEL_REF, "sha256": MODEL_SHA256},
                "options": {"threads": 1, "context_tokens": 256},
                "workloads": [
                    {
                        "name": "w",
                        "kind": "single",
                        "prompts": ["The sun"],
                        "output_tokens": 8,
                        "repetitions": repetitions,
                    }
                ],
                "quiet_gate": {"cpu_percent_max": 100, "timeout_s": 0},
                **job,
            },
        }
    )
