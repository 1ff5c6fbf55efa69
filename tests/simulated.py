"""A simulated device for tests: its books on disk, its clock in the test's hand."""

import json

from fakes.fake_time import FakeTime
from fleetmark_agent.database import Database
from fleetmark_agent.joblog import JobLog
from fleetmark_agent.outbox import Outbox
from fleetmark_agent.recorder import Recorder
from fleetmark_agent.simulation.figures import Figures
from fleetmark_agent.simulation.jobs import Offer, SimulatedRunner
from fleetmark_agent.simulation.loop import Loop
from fleetmark_protocol.messages import Assignment


class Device:
    """Outbox, job log and runner of a simulated device, and a clock of its own."""

    def __init__(self, file, backends=("xllamacpp",)):
        self.time = FakeTime()
        self.loop = Loop(self.time, self.time.selector)
        self.database = Database(file)
        self.outbox = Outbox(self.database, 10**8)
        self.joblog = JobLog(self.database)
        self.counted = []
        self.runner = SimulatedRunner(
            Recorder(self.database, self.outbox, self.joblog, stopped=lambda: True),
            Figures(seed=1, device="d"),
            self.loop,
            Offer(frozenset(backends), trial_s=1.0),
            on_event=self.outbox.append,
            on_record=self.counted.append,
            on_change=lambda: None,
        )

    def run_for(self, seconds):
        end_s = self.time.now_s + seconds
        self.loop.run_until(lambda: self.time.now_s >= end_s)

    def records(self, kind):
        every = [json.loads(body) for _, body in self.outbox.batch(10_000, 10**9)]
        return [record for record in every if record["kind"] == kind]

    def states(self):
        return [job["state"] for job in self.records("job")]

    def close(self):
        self.loop.close()
        self.database.close()


def assignment(number=0, desired="run", repetitions=2, **job):
    return Assignment.model_validate(
        {
            "desired": desired,
            "job": {
                "job_id": f"c.d.{number:03d}",
                "campaign_id": "c",
                "backend": "xllamacpp",
                "model": {"name": "m", "ref": "path:m.gguf", "sha256": "ab" * 32},
                "labels": {"threads": 2},
                "workloads": [
                    {
                        "name": "w",
                        "kind": "single",
                        "prompts": ["a prompt of some words"],
                        "output_tokens": 16,
                        "repetitions": repetitions,
                    }
                ],
                **job,
            },
        }
    )
