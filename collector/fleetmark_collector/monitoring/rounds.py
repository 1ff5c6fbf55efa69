"""Which campaigns are told of next, and whether their cells have to be computed again. Pure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fleetmark_collector.campaigns.tables import CampaignRow

MAX_CAMPAIGNS = 10
"""Campaigns of one round; the others have their turn in the next ones."""

SUMMARY_S = 30.0
"""From one summary of a campaign's cells to the next at least."""

SHARE = 20
"""A summary that took long is made again only after so many times what it took: at most about a
twentieth of one core's time goes into them, however many trials a campaign has."""

SETTLED_S = 600.0
"""How long after its end a campaign is still looked at: its last trials may come late."""

NS = 10**9


@dataclass
class _Turn:
    """What was last told of a campaign; times are the monotonic clock's."""

    told_s: float = -math.inf
    summed_up: object = None
    due_s: float = -math.inf


class Rounds:
    """Runs through all campaigns: those that run again and again, one that has ended to its end.

    Nothing of it is kept on a disk. After a restart every campaign that has ended is told of once
    more, the newest first, which changes nothing where all of it arrived, and mends what did not;
    and a store that was changed for another one gets to know them all.
    """

    def __init__(self) -> None:
        """Begin with the newest."""
        self._turns: dict[str, _Turn] = {}
        self._done: set[str] = set()

    def next(self, campaigns: Iterable[CampaignRow], now_s: float) -> list[CampaignRow]:
        """Return those to be told of now: the ones that have waited longest, the newest first.

        Args:
            campaigns: all there are.
            now_s: the monotonic clock.
        """
        waiting = [row for row in campaigns if row.campaign_id not in self._done]
        waiting.sort(key=lambda row: (self._turn(row).told_s, -row.created_ns))
        for row in waiting[:MAX_CAMPAIGNS]:
            self._turn(row).told_s = now_s
        return waiting[:MAX_CAMPAIGNS]

    def summary_due(self, row: CampaignRow, contents: object, now_s: float) -> bool:
        """Whether the cells have to be computed.

        Args:
            row: the campaign.
            contents: what they are made of: equal as long as no trial came.
            now_s: the monotonic clock.
        """
        turn = self._turn(row)
        return turn.summed_up != contents and now_s >= turn.due_s

    def summed_up(self, row: CampaignRow, contents: object, started_s: float, now_s: float) -> None:
        """Note that they were, from `started_s` to `now_s`."""
        turn = self._turn(row)
        turn.summed_up = contents
        turn.due_s = now_s + max(SUMMARY_S, SHARE * (now_s - started_s))

    def settle(self, row: CampaignRow, contents: object, now_ns: int) -> bool:
        """Drop a campaign whose end has been told; return whether it was dropped.

        Args:
            row: the campaign.
            contents: see `summary_due`.
            now_ns: the clock that campaigns go by.
        """
        if row.finished_ns is None or now_ns - row.finished_ns < SETTLED_S * NS:
            return False
        if self._turn(row).summed_up != contents:
            return False
        self._done.add(row.campaign_id)
        self._turns.pop(row.campaign_id, None)
        return True

    def forget_all_but(self, known: Iterable[str]) -> set[str]:
        """Let go of campaigns that are no more; return their ids."""
        gone = (self._turns.keys() | self._done) - set(known)
        for campaign_id in gone:
            self._turns.pop(campaign_id, None)
        self._done -= gone
        return gone

    def _turn(self, row: CampaignRow) -> _Turn:
        return self._turns.setdefault(row.campaign_id, _Turn())
