"""One attempt of a job on a simulated device: a real one's course, and figures that are made up.

A simulated request takes no longer than a simulated trial, whatever it says of itself: a soak of an
hour is over in a minute, and tells of an hour.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from fleetmark_agent.adaptive import Ending, Outcome
from fleetmark_agent.course import Course, Round
from fleetmark_agent.recorder import Recorder
from fleetmark_agent.results import Start, counted_latency_s
from fleetmark_agent.simulation.figures import Figures
from fleetmark_agent.simulation.results import load_record, run_fields, trial_records
from fleetmark_protocol.errors import JobTimedOut
from fleetmark_protocol.messages import JobSpec
from fleetmark_protocol.records import EventRecord

SOAK_REQUESTS = 60
"""A soak is told in about so many requests, however long it is."""

T = TypeVar("T")
Script = Generator[float, None, T]
"""Yields how many seconds its next step takes."""


@dataclass(frozen=True)
class Bench:
    """What a simulated device measures with.

    Attributes:
        recorder: takes what was measured; see `write`.
        figures: makes it up.
        clock_s: a monotonic clock.
        trial_s: how long a trial takes, roughly.
        check: raises Canceled where the job is to stop.
        write: calls something until the disk takes it.
        on_event: takes an event for the outbox.
        on_record: called with the kind of each other record that is in the outbox now.
        on_trial: called with the id of the trial that begins.
    """

    recorder: Recorder
    figures: Figures
    clock_s: Callable[[], float]
    trial_s: float
    check: Callable[[], None]
    write: Callable[[Callable[[], None]], Script[None]]
    on_event: Callable[[EventRecord], None]
    on_record: Callable[[str], None]
    on_trial: Callable[[str], None]


class Measurement:
    """Plays one attempt."""

    def __init__(self, bench: Bench, spec: JobSpec, attempt: int) -> None:
        """Prepare; see `Bench` for how it goes about it."""
        self._bench = bench
        self._spec = spec
        self._attempt = attempt
        self._run = run_fields(spec, attempt)
        self._deadline_s = bench.clock_s() + spec.timeouts.job_s
        self._told_s = 0.0
        """The time by what the records tell, in which a soak takes as long as it should."""
        self._loaded = False
        self._load_s: float | None = None
        self._cooled: bool | None = None
        self._requests = 0

    def script(self) -> Script[None]:
        """Run all trials that are left.

        Raises:
            Canceled: asked to stop.
            JobTimedOut: the job's own deadline passed.
        """
        past = self._bench.recorder.joblog.past(self._spec.job_id)
        course = Course(self._spec, self._attempt, past)
        yield from self._cool("job")
        while (asked := course.next()) is not None:
            self._tell(course.endings())
            yield from self._round(course, asked)
        self._tell(course.endings())

    def _round(self, course: Course, asked: Round) -> Script[None]:
        workload = asked.workload
        if asked.opens:
            yield from self._cool("repetition")
        course.begin(self._told_s)
        cached_percent = None
        if asked.cold or not self._loaded:
            dropped = workload.kind == "coldstart" and workload.page_cache == "drop"
            yield from self._load(dropped=dropped)
            cached_percent = self._bench.figures.cached_percent(dropped=dropped)
            # An engine that was started for one round ends with it.
            self._loaded = not asked.cold
        soak_s = course.opened(self._told_s)
        start = Start(
            time.time_ns(),
            self._load_s,
            soak_s,
            self._cooled,
            cached_percent if asked.cold else None,
        )
        slowed = soak_s is not None and soak_s > (workload.duration_s or 0.0) / 2
        answers, told_s = self._answers(asked, soak_s, slowed=slowed)
        self._bench.on_trial(asked.trials[0].trial_id)
        yield from self._wait(min(told_s, self._bench.trial_s) if soak_s is not None else told_s)
        self._told_s += told_s
        self._load_s = None
        windows = [self._bench.figures.window(told_s, slowed=slowed) for _ in answers]
        records = trial_records(self._run, self._spec, asked, answers, windows, start)
        latencies_s = [counted_latency_s(record) for record in records]
        outcomes = course.took(asked, latencies_s, self._told_s, failed=False)
        yield from self._bench.write(lambda: self._bench.recorder.trials(records, outcomes))
        for _ in records:
            self._bench.on_record("trial")
        if soak_s is not None:
            self._tell_soak(asked, outcomes)

    def _answers(
        self, asked: Round, soak_s: float | None, *, slowed: bool
    ) -> tuple[list[dict[str, Any]], float]:
        """Return what a worker would send for each request, and how long they take together."""
        figures, workload = self._bench.figures, asked.workload
        answers, longest_s = [], 0.0
        for trial in asked.trials:
            duration_s = figures.duration_s(self._spec, self._bench.trial_s)
            if soak_s is not None:
                duration_s = max(duration_s, (workload.duration_s or 0.0) / SOAK_REQUESTS)
            # Who shares an engine waits for the others, though less than for all their work.
            duration_s *= 1 + 0.3 * (len(asked.trials) - 1)
            duration_s *= 1.4 if slowed else 1.0
            longest_s = max(longest_s, duration_s)
            answers.append(
                figures.answer(self._spec, trial.prompt, workload.output_tokens, duration_s)
            )
        return answers, longest_s

    def _load(self, *, dropped: bool) -> Script[None]:
        self._bench.check()
        load_s = self._bench.figures.load_s(self._spec, self._bench.trial_s)
        yield load_s
        load_s *= 3.0 if dropped else 1.0
        self._told_s += load_s
        self._bench.check()
        record = load_record(self._run, load_s, time.time_ns())
        yield from self._bench.write(lambda: self._bench.recorder.load(record))
        self._bench.on_record("load")
        self._load_s = load_s

    def _wait(self, duration_s: float) -> Script[None]:
        self._bench.check()
        yield duration_s
        self._bench.check()
        if self._bench.clock_s() > self._deadline_s:
            raise JobTimedOut(f"the job took longer than {self._spec.timeouts.job_s:g} s")

    def _cool(self, before: str) -> Script[None]:
        rule = self._spec.cool_down
        if rule is not None and rule.before == before:
            yield from self._wait(min(rule.timeout_s, self._bench.trial_s))
            self._cooled = True

    def _tell(self, endings: list[Ending]) -> None:
        for end in endings:
            data: dict[str, Any] = {
                "workload": end.workload,
                "repetitions": end.repetitions,
                "reason": end.reason,
            }
            if end.half_width_percent is not None:
                data["half_width_percent"] = end.half_width_percent
            self._event("repetitions_ended", f"{end.workload}: {end.reason}", data)

    def _tell_soak(self, asked: Round, outcomes: tuple[Outcome, ...]) -> None:
        self._requests = 1 if asked.opens else self._requests + 1
        for outcome in outcomes:
            data = {
                "workload": asked.workload.name,
                "repetition": asked.trials[0].repetition,
                "requests": self._requests,
                "soak_s": outcome.spent_s,
                "duration_s": asked.workload.duration_s or 0.0,
            }
            self._event("soak_ended", f"{asked.workload.name}: {self._requests} requests", data)

    def _event(self, code: str, message: str, data: dict[str, Any]) -> None:
        self._bench.on_event(
            EventRecord(
                time_ns=time.time_ns(),
                severity="info",
                code=code,
                message=message,
                job_id=self._spec.job_id,
                data={**data, "attempt": self._attempt},
            )
        )
