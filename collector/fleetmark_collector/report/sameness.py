"""Whether two engines did the same work: prompt tokens and greedy output, compared; no I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import TypeVar

from fleetmark_protocol.records import TrialRecord

T = TypeVar("T")

Prompt = tuple[str, int]
"""A workload and which of its prompts."""

Answers = Mapping[Prompt, Sequence[TrialRecord]]
"""The usable trials of one configuration."""


class Sameness(StrEnum):
    """How alike the work of two engines is, the least alike last."""

    IDENTICAL = "identical"
    SAME_TEXT = "same text, other tokens"
    DIVERGES = "diverges"
    TOKENIZED = "prompt tokenized differently"
    NOT_COMPARABLE = "not comparable"


ORDER = list(Sameness)


@dataclass(frozen=True)
class Verdict:
    """What one prompt shows of two engines.

    Attributes:
        detail: where they diverge, how the prompts differ, or why they are not comparable.
        at: where they diverge, counted from 1; None for every other kind.
    """

    kind: Sameness
    detail: str = ""
    at: int | None = None

    @property
    def text(self) -> str:
        """The verdict in words."""
        joint = ": " if self.kind is Sameness.NOT_COMPARABLE else " "
        return f"{self.kind}{joint}{self.detail}" if self.detail else str(self.kind)


@dataclass(frozen=True)
class Work:
    """What two engines made of all prompts that both were asked.

    Attributes:
        worst: the verdict on the prompt that they treat least alike (of several divergences, the
            earliest).
        identical: how many prompts they answer identically.
        prompts: how many both were asked.
    """

    worst: Verdict
    identical: int
    prompts: int

    @property
    def text(self) -> str:
        """The verdict in words, with the share of identical prompts."""
        if self.prompts < 2:
            return self.worst.text
        if self.identical == self.prompts:
            return f"{self.worst.text} over {self.prompts} prompts"
        return f"{self.worst.text}, {self.identical} of {self.prompts} prompts identical"


def compare_work(mine: Answers, theirs: Answers) -> Work:
    """Compare all prompts that both were asked."""
    common = [prompt for prompt in mine if prompt in theirs]
    if not common:
        why = "no prompt in common" if mine and theirs else "no usable trial"
        return Work(Verdict(Sameness.NOT_COMPARABLE, why), 0, 0)
    verdicts = [compare_answers(mine[prompt], theirs[prompt]) for prompt in common]
    worst = max(verdicts, key=lambda one: (ORDER.index(one.kind), -(one.at or 0)))
    same = sum(one.kind is Sameness.IDENTICAL for one in verdicts)
    return Work(worst, same, len(common))


def compare_answers(mine: Sequence[TrialRecord], theirs: Sequence[TrialRecord]) -> Verdict:
    """Compare what two engines made of one prompt; each side has at least one trial."""
    here, there = _telling(mine), _telling(theirs)
    if here.prompt_sha256 != there.prompt_sha256:
        return Verdict(Sameness.NOT_COMPARABLE, "other prompts")
    if here.output_tokens_requested != there.output_tokens_requested:
        asked = f"{here.output_tokens_requested} and {there.output_tokens_requested}"
        return Verdict(Sameness.NOT_COMPARABLE, f"asked for {asked} tokens")
    return _prompts(here, there) or _outputs(here, there)


def repeats_itself(answers: Answers) -> bool | None:
    """Whether all repetitions of a prompt gave the same; None where no prompt was repeated."""
    repeated = [trials for trials in answers.values() if len(trials) > 1]
    if not repeated:
        return None
    return all(len({_digest(one, trials) for one in trials}) == 1 for trials in repeated)


def tokenized(here: TrialRecord, there: TrialRecord) -> str | None:
    """Return how the tokens of the same prompt differ; None where they do not, or nobody knows."""
    ids = (here.prompt_ids_sha256, there.prompt_ids_sha256)
    counts = (here.prompt_tokens, there.prompt_tokens)
    if None not in ids and ids[0] == ids[1]:
        return None
    if None not in counts and counts[0] != counts[1]:
        return f"{counts[0]} vs {counts[1]} tokens"
    return None if None in ids else f"{counts[0] or 'unknown number of'} tokens, other ids"


def _telling(trials: Sequence[TrialRecord]) -> TrialRecord:
    """Return the trial that carries token ids, else the first."""
    return next((one for one in trials if one.output_ids is not None), trials[0])


def _digest(trial: TrialRecord, among: Sequence[TrialRecord]) -> str | None:
    by_ids = all(one.output_ids_sha256 is not None for one in among)
    return trial.output_ids_sha256 if by_ids else trial.output_sha256


def _prompts(here: TrialRecord, there: TrialRecord) -> Verdict | None:
    difference = tokenized(here, there)
    return None if difference is None else Verdict(Sameness.TOKENIZED, f"({difference})")


def _outputs(here: TrialRecord, there: TrialRecord) -> Verdict:
    ids = (here.output_ids_sha256, there.output_ids_sha256)
    texts = (here.output_sha256, there.output_sha256)
    if None not in ids and ids[0] == ids[1]:
        return Verdict(Sameness.IDENTICAL)
    if None not in texts and texts[0] == texts[1]:
        if None in ids:
            return Verdict(Sameness.IDENTICAL, "by its text")
        return Verdict(Sameness.SAME_TEXT)
    if here.output_ids is not None and there.output_ids is not None:
        return _diverges("token", here.output_ids, there.output_ids)
    if here.output_text is not None and there.output_text is not None:
        return _diverges("character", here.output_text, there.output_text)
    return Verdict(Sameness.NOT_COMPARABLE, "the output was not recorded")


def _diverges(unit: str, mine: Sequence[T], theirs: Sequence[T]) -> Verdict:
    pairs = enumerate(zip_longest(mine, theirs), 1)
    at = next((position for position, (one, other) in pairs if one != other), None)
    if at is None:
        # Records keep the beginning of a long output only.
        return Verdict(Sameness.DIVERGES, f"after {unit} {len(mine)}", len(mine) + 1)
    return Verdict(Sameness.DIVERGES, f"at {unit} {at}", at)
