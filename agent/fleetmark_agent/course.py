"""Which request of a job comes next, told what came of those before. Pure: no clock, no I/O."""

from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby

from fleetmark_agent.adaptive import Ending, Outcome, ending
from fleetmark_agent.rounds import rounds
from fleetmark_agent.trials import PlannedTrial, plan, soak_id, soak_request
from fleetmark_protocol.messages import JobSpec
from fleetmark_protocol.workloads import Workload


@dataclass(frozen=True)
class Past:
    """What earlier attempts have left.

    Attributes:
        done: ids of the trials that are recorded.
        outcomes: what is known of them, where it matters for what is still to come.
    """

    done: frozenset[str] = frozenset()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """One request, or those that are made at the same time.

    Attributes:
        trials: as many as clients ask.
        cold: whether the engine is started for it alone.
        opens: whether a repetition begins with it, as far as it is left; a warm-up is none.
    """

    trials: tuple[PlannedTrial, ...]
    cold: bool
    opens: bool

    @property
    def workload(self) -> Workload:
        """Whose request it is."""
        return self.trials[0].workload


@dataclass
class _Soak:
    """The one under way."""

    number: int
    began_s: float | None = None
    over: bool = False


class Course:
    """Ask `next`; call `begin`, `opened` (its window) and `took` (it is over); and so on."""

    def __init__(self, spec: JobSpec, attempt: int, past: Past) -> None:
        """Go on where earlier attempts ended.

        Args:
            spec: the job.
            attempt: the number of this attempt.
            past: see `Past`.
        """
        self._spec = spec
        self._attempt = attempt
        self._past = past
        self._outcomes = dict(past.outcomes)
        self._soak: _Soak | None = None
        self._began_s = 0.0
        self._rounds = self._all()
        self._endings: list[Ending] = []

    def next(self) -> Round | None:
        """Return what comes next; None at the end."""
        return next(self._rounds, None)

    def endings(self) -> list[Ending]:
        """Return the adaptive workloads whose repetitions have ended since the last call."""
        ended, self._endings = self._endings, []
        return ended

    def begin(self, now_s: float) -> None:
        """Note that the round begins.

        Args:
            now_s: on a monotonic clock; before the engine is started, where that is for it alone.
        """
        self._began_s = now_s

    def opened(self, at_s: float) -> float | None:
        """Return how long its soak had gone on when its window opened; None where it is none.

        Args:
            at_s: when that was, on the clock of `begin`.
        """
        if self._soak is None:
            return None
        if self._soak.began_s is None:
            self._soak.began_s = at_s
        return at_s - self._soak.began_s

    def took(
        self, done: Round, latencies_s: Sequence[float | None], now_s: float, *, failed: bool
    ) -> tuple[Outcome, ...]:
        """Take in what came of a round; return what the next attempt would have to know.

        Args:
            done: the round.
            latencies_s: of its trials; None of one that may not be compared.
            now_s: on the clock of `begin`.
            failed: whether one of its requests failed; a soak ends with it.
        """
        spent_s = now_s - self._began_s
        found: tuple[Outcome, ...] = ()
        soak = self._soak
        if soak is not None and soak.began_s is not None:
            whole_s = now_s - soak.began_s
            soak.over = failed or whole_s >= (done.workload.duration_s or 0.0)
            if soak.over:
                of = soak_id(self._spec, done.workload, soak.number)
                found = (Outcome(of, None, whole_s),)
        elif done.workload.adaptive is not None and not done.trials[0].warmup:
            # The time of a round is spent once, however many asked.
            shares = [spent_s] + [0.0] * (len(done.trials) - 1)
            found = tuple(
                Outcome(trial.trial_id, latency_s, share_s)
                for trial, latency_s, share_s in zip(done.trials, latencies_s, shares, strict=True)
            )
        self._outcomes.update({outcome.of: outcome for outcome in found})
        return found

    def _all(self) -> Iterator[Round]:
        planned = plan(self._spec)
        made: dict[str, list[list[PlannedTrial]]] = defaultdict(list)
        ended: set[str] = set()
        for warmup, group in groupby(planned, key=lambda one: one.warmup):
            for _, together in groupby(group, key=lambda one: (one.workload.name, one.repetition)):
                trials = list(together)
                workload = trials[0].workload
                if workload.name in ended:
                    continue
                yield from self._left(trials, opens=not warmup)
                if not warmup and workload.adaptive is not None:
                    made[workload.name].append(trials)
                    if self._ends(workload, made[workload.name]):
                        ended.add(workload.name)
        index = len(planned)
        for workload in self._spec.workloads:
            if workload.kind == "soak":
                for number in range(workload.repetitions):
                    index = yield from self._soaking(workload, number, index)

    def _left(self, trials: list[PlannedTrial], *, opens: bool) -> Iterator[Round]:
        """Yield what is not recorded of a repetition; of a round that is in part, all again."""
        for together in rounds(trials):
            if all(trial.trial_id in self._past.done for trial in together):
                continue
            yield Round(tuple(together), self._cold(together[0].workload), opens)
            opens = False

    def _ends(self, workload: Workload, made: list[list[PlannedTrial]]) -> bool:
        latencies_s = [self._latency_s(trials) for trials in made]
        known = (self._outcomes.get(trial.trial_id) for trials in made for trial in trials)
        spent_s = sum(outcome.spent_s for outcome in known if outcome is not None)
        end = ending(workload, latencies_s, spent_s)
        if end is not None:
            self._endings.append(end)
        return end is not None

    def _latency_s(self, trials: list[PlannedTrial]) -> float | None:
        """Return a repetition's latency: of its prompts one after another, or of the slowest client
        where all asked at the same time."""
        found = [self._outcomes.get(trial.trial_id) for trial in trials]
        known = [one.latency_s for one in found if one is not None and one.latency_s is not None]
        if len(known) < len(trials):
            return None
        return max(known) if trials[0].client is not None else sum(known)

    def _soaking(self, workload: Workload, number: int, index: int) -> Generator[Round, None, int]:
        if soak_id(self._spec, workload, number) in self._outcomes:
            return index
        self._soak = _Soak(number)
        for asked in count():
            trial = soak_request(self._spec, workload, number, self._attempt, asked, index)
            yield Round((trial,), self._cold(workload), opens=asked == 0)
            index += 1
            if self._soak.over:
                break
        self._soak = None
        return index

    def _cold(self, workload: Workload) -> bool:
        return self._spec.options.start == "cold" or workload.kind == "coldstart"
