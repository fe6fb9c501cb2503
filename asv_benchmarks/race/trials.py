"""One cell of the race, in a worker process: search for settings, then runs in turns."""

from __future__ import annotations

import gc
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from race.accuracy import Task, Verdict, judge
from race.competitors import Ladder, Options, Peer, answer_of, facts_of
from race.statistics import SLOW, dropped, ratio_of
from race.timing import Ceilings, sample, timed

Announce = Callable[[str, float], None]


# ---- settings -------------------------------------------------------------------------------


@dataclass
class _Try:
    """Setting, its time and its verdict."""

    options: Options
    seconds: float
    verdict: Verdict


def tune(
    peer: Peer,
    task: Task,
    limit: float,
    effort: Effort,
    announce: Announce,
    elsewhere: Outcome | None = None,
) -> Outcome:
    """Find the fastest setting of a competitor that reaches the accuracy.

    Parameters
    ----------
    peer : Peer
        The competitor.
    task : Task
        The task.
    limit : float
        Seconds above which it is dropped: five times the fastest.
    effort : Effort
        Seeds and timeout.
    announce : callable
        Function that is called before each call with the name and its limit in seconds.
    elsewhere : Outcome, optional
        Outcome with another number of threads. The accuracy does not depend on threads, so a
        sufficient setting is not searched again.

    Returns
    -------
    Outcome
    """
    search = _Search(peer, task, limit, effort, announce)
    found = search.begun_with(elsewhere) if elsewhere is not None else []
    found = found or list(search.all_variants())
    good = [one for one in found if one.verdict.reached]
    if not good:
        closest = min(found, key=lambda one: one.verdict.error, default=None)
        if closest is None:
            return Outcome(peer.name, peer.role, "failed", note=search.failure)
        # A competitor that is too slow stays so with a longer search.
        outcome = _outcome(peer, closest, "slow" if closest.seconds > limit else "missed")
        outcome.note = outcome.note or search.failure
        return outcome
    best = min(good, key=lambda one: one.seconds)
    if best.seconds > limit:
        return _outcome(peer, best, "slow")
    best = search.for_all_seeds(best)
    if not best.verdict.reached:
        return _outcome(peer, best, "missed")
    return _outcome(peer, best, "slow" if best.seconds > limit else "raced")


def _outcome(peer: Peer, one: _Try, status: str) -> Outcome:
    return Outcome(
        peer.name,
        peer.role,
        status,
        options=one.options,
        reached=one.verdict.reached,
        seconds=one.seconds,
        error=one.verdict.error,
        note=one.verdict.note,
    )


_COLD = 1.0
"""Seconds by which a first call may be slower than the next."""


class _Search:
    def __init__(
        self, peer: Peer, task: Task, limit: float, effort: Effort, announce: Announce
    ) -> None:
        self.peer, self.task, self.limit, self.effort = peer, task, limit, effort
        self.announce = announce
        self.run = peer.runner(task)
        self.ladder: Ladder = peer.ladder(task.cell, task.one)
        self.failure = ""
        self.spent = 0.0
        self.least = math.inf
        self.cold = True

    def attempt(self, options: Options, seed: int = 0) -> _Try | None:
        """Run a setting once and judge it; None if it raised an exception."""
        call_limit = max(10.0, 3 * self.limit) if math.isfinite(self.limit) else math.inf
        self.announce(self.peer.name, min(self.effort.timeout, call_limit))

        def call() -> Any:
            return self.run(seed, options)

        started = time.perf_counter()
        try:
            seconds, raw = timed(call) if self.cold else (0.0, None)
            # One-time costs (imports, compiled code, threads) are not timed.
            if not self.cold or (self.effort.for_time and seconds < min(20.0, self.limit + _COLD)):
                seconds, raw = timed(call)
            if self.effort.for_time and seconds < 0.05:
                seconds, raw = sample(call, seconds)
            self.cold = False
        except Exception as error:  # a peer may raise any error if it does not converge
            self.failure = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            return None
        finally:
            self.spent += time.perf_counter() - started
        self.least = min(self.least, seconds)
        return _Try(options, seconds, judge(self.task, answer_of(raw)))

    def begun_with(self, elsewhere: Outcome) -> list[_Try]:
        """Return the setting of another run of this cell, if its outcome is the same; else [].

        It is also [] if there is no option for the accuracy: all settings are then tried.
        """
        if not self.ladder.option or self.ladder.option not in elsewhere.options:
            return []
        one = self.attempt(elsewhere.options)
        return [one] if one is not None and one.verdict.reached == elsewhere.reached else []

    def all_variants(self) -> Iterator[_Try]:
        """Yield the best setting of each variant; stop if it is far too slow or time is up."""
        for options in self.peer.variants(self.task.cell, self.task.one):
            one = self.best_of(options)
            if one is None:
                continue
            yield one
            if not self.effort.for_time or self.least > 2 * self.limit or self._tired(one, 2):
                return

    def at(self, fixed: Options, place: int) -> _Try | None:
        option = self.ladder.option
        return self.attempt({**fixed, option: self.ladder.values[place]} if option else fixed)

    def best_of(self, fixed: Options) -> _Try | None:
        """Return the cheapest sufficient value of the ladder; else the most accurate one tried."""
        top, place = len(self.ladder.values) - 1, self.ladder.hint
        tried: dict[int, _Try | None] = {}

        def good(at: int) -> bool:
            if at not in tried:
                tried[at] = self.at(fixed, at)
            one = tried[at]
            return one is not None and one.verdict.reached

        if good(place) and not self.effort.for_time:
            return tried[place]
        low, high = self._bracket(good, tried, place, top)
        while high is not None and high - low > 1 and not self._tired(tried[high]):
            middle = (low + high) // 2
            low, high = (low, middle) if good(middle) else (middle, high)
        if high is not None:
            return tried[high]
        made = [one for one in tried.values() if one is not None]
        return min(made, key=lambda one: one.verdict.error, default=None)

    def _bracket(
        self,
        good: Callable[[int], bool],
        tried: dict[int, _Try | None],
        place: int,
        top: int,
    ) -> tuple[int, int | None]:
        """Return an insufficient value (-1: below the cheapest) and a sufficient one, or None."""
        step = 1
        if good(place):
            high = place
            while high > 0 and not self._tired(tried[high]):
                low = max(0, high - step)
                if not good(low):
                    return low, high
                high, step = low, 2 * step
            return high - 1, high
        low = place
        while low < top:
            one = tried[low]
            if (one is not None and one.seconds > self.limit) or self._tired(one):
                break
            high = min(top, low + step)
            if good(high):
                return low, high
            low, step = high, 2 * step
        return low, None

    def _tired(self, one: _Try | None, patience: float = 1) -> bool:
        """True if the search has taken many times as long as it could still save."""
        return self.spent > patience * max(4.0, 8 * (one.seconds if one else 0.0))

    def for_all_seeds(self, best: _Try) -> _Try:
        """Return this setting, or the next more accurate one, that succeeds with every seed."""
        option, values = self.ladder.option, self.ladder.values
        place = values.index(best.options[option]) if option else 0
        for _ in range(10):
            others = [self.attempt(best.options, seed) for seed in range(1, self.effort.seeds)]
            failed = [one for one in others if one is None or not one.verdict.reached]
            if not failed:
                return best
            place += 1
            if not option or place >= len(values):
                break
            following = self.attempt({**best.options, option: values[place]})
            best = following if following is not None else best
        worst = max(
            (one.verdict for one in others if one is not None),
            key=lambda verdict: verdict.error,
            default=best.verdict,
        )
        verdict = Verdict(worst.error, False, worst.note or "not with every random start")
        return _Try(best.options, best.seconds, verdict)


# ---- a cell ---------------------------------------------------------------------------------


def race_cell(
    task: Task,
    default: Peer,
    others: Sequence[Peer],
    ceilings: Ceilings,
    effort: Effort,
    *,
    known: dict[str, Outcome] | None = None,
    elsewhere: dict[str, Outcome] | None = None,
    announce: Announce = lambda name, limit: None,
    tuned: Callable[[Outcome], None] = lambda outcome: None,
) -> dict[str, Any]:
    """Tune all competitors, run them in turns, and compare.

    Parameters
    ----------
    task : Task
        The task.
    default, others : Peer
        trsvd, and all other competitors.
    ceilings : Ceilings
        Ceilings of this machine.
    effort : Effort
        Limits of the measurements.
    known : dict, optional
        Outcomes of an interrupted run of this cell.
    elsewhere : dict, optional
        Outcomes of this cell with another number of threads.
    announce, tuned : callable
        Functions that are called before each call, and after each search.

    Returns
    -------
    dict
        Result of the cell, for JSON.
    """
    outcomes: dict[str, Outcome] = dict(known or {})
    peers = {peer.name: peer for peer in (default, *others)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, peer in peers.items():
            if name in outcomes or not (peer.installed() and peer.suits(task.cell, task.one)):
                continue
            limit = _limit(peer, outcomes.values())
            if peer.full and not task.cell.batch and ceilings.of_full_svd(task.one) > limit:
                note = "4 m n min(m, n) operations alone take longer"
                outcomes[name] = Outcome(name, peer.role, "slow", note=note)
            else:
                before = (elsewhere or {}).get(name)
                judged = _task_for(peer, task)
                outcomes[name] = tune(peer, judged, limit, effort, announce, before)
            tuned(outcomes[name])
        rounds = 0
        for _ in range(3):
            _drop(outcomes)
            in_play = [name for name, outcome in outcomes.items() if outcome.status == "raced"]
            rounds = _take_turns(task, peers, outcomes, list(in_play), effort, announce)
            if all(outcomes[name].status == "raced" for name in in_play):
                break
            _readmit(outcomes)
    return _compared(task, outcomes, ceilings, rounds)


def _task_for(peer: Peer, task: Task) -> Task:
    """Return the task by which a competitor is judged; for a reference, its own oracle."""
    if peer.role != "reference":
        return task
    cell = replace(task.cell, k=task.one.rank, target=1.0)
    return replace(task, cell=cell)


def _limit(peer: Peer, outcomes: Any) -> float:
    """Return the seconds above which a competitor is dropped: five times the fastest."""
    if peer.role not in {"peer", "own"}:
        return math.inf
    kinds = {"peer"} if peer.role == "peer" else {"own", "trsvd"}
    times = [one.seconds for one in outcomes if one.role in kinds and one.reached]
    return SLOW * min(times, default=math.inf)


def _drop(outcomes: dict[str, Outcome]) -> None:
    """Drop competitors that are too slow, once all times are known."""
    for kinds in ({"peer"}, {"own", "trsvd"}):
        times = {
            name: outcome.seconds
            for name, outcome in outcomes.items()
            if outcome.role in kinds and outcome.status == "raced" and outcome.seconds is not None
        }
        for name in dropped(times):
            if outcomes[name].role != "trsvd":
                outcomes[name].status = "slow"


def _readmit(outcomes: dict[str, Outcome]) -> None:
    """Restart without competitors that missed, since their times may have dropped others."""
    for outcome in outcomes.values():
        if outcome.status == "slow" and outcome.reached:
            outcome.status = "raced"
        outcome.times = []


def _take_turns(
    task: Task,
    peers: dict[str, Peer],
    outcomes: dict[str, Outcome],
    in_play: list[str],
    effort: Effort,
    announce: Announce,
) -> int:
    """Run competitors in the order A B C, C B A, ..., so that other load affects all alike."""
    runs = {name: peers[name].runner(_task_for(peers[name], task)) for name in in_play}
    started, rounds = time.perf_counter(), 0
    while in_play and not effort.enough(rounds, time.perf_counter() - started):
        gc.collect()
        for name in in_play if rounds % 2 == 0 else reversed(in_play):
            outcome = outcomes[name]
            if outcome.role == "reference" and sum(outcome.times) > effort.seconds:
                continue
            announce(name, effort.timeout)
            time.sleep(effort.pause)
            seed = rounds % effort.seeds
            expected = statistics.median(outcome.times) if outcome.times else outcome.seconds or 0
            expected = expected if effort.for_time else math.inf
            try:
                seconds, raw = sample(partial(runs[name], seed, outcome.options), expected)
            except Exception as error:
                outcome.status, outcome.reached = "failed", False
                outcome.note = f"{type(error).__name__}: {error}"
                continue
            outcome.times.append(seconds)
            _check(outcome, judge(_task_for(peers[name], task), answer_of(raw)))
            if outcome.role in {"own", "trsvd", "unverified"}:
                outcome.facts = facts_of(raw)
        in_play[:] = [name for name in in_play if outcomes[name].status == "raced"]
        rounds += 1
    return rounds


def _check(outcome: Outcome, verdict: Verdict) -> None:
    """Mark a competitor as missed if any of its results misses the accuracy."""
    outcome.error = max(outcome.error or 0.0, verdict.error)
    if not verdict.reached and outcome.role != "reference":
        outcome.status, outcome.reached = "missed", False
        outcome.note = verdict.note or "in one of the rounds"


def _compared(
    task: Task, outcomes: dict[str, Outcome], ceilings: Ceilings, rounds: int
) -> dict[str, Any]:
    for outcome in outcomes.values():
        if outcome.times:
            outcome.seconds = statistics.median(outcome.times)
    ours = next(outcome for outcome in outcomes.values() if outcome.role == "trsvd")
    raced = [one for one in outcomes.values() if one.status == "raced"]
    record: dict[str, Any] = {"rounds": rounds, "reached": ours.status == "raced"}
    unverified = [one.times for one in raced if one.role == "unverified"]
    if record["reached"]:
        for role in ("peer", "reference"):
            group = [one for one in raced if one.role == role]
            if group:
                fastest = min(group, key=_seconds)
                record[role] = {
                    "name": fastest.name,
                    **ratio_of(ours.times, fastest.times).__dict__,
                }
                if unverified and role == "peer":
                    record["unverified"] = ratio_of(unverified[0], fastest.times).value
        products = ours.facts.get("matvecs")
        if products is not None and not task.cell.batch:
            total = products + ours.facts.get("matvecs_verify", 0)
            passes = ours.facts.get("passes", 0)
            record["ceiling"] = ceilings.share(task.one, total, passes, _seconds(ours))
        own = [one for one in raced if one.role in {"own", "trsvd"} and one.name != "one at a time"]
        best = min(own, key=_seconds)
        record["pick"] = {"best": best.name, "ratio": _seconds(ours) / _seconds(best)}
    record["competitors"] = [outcome.as_dict() for outcome in outcomes.values()]
    return record


def _seconds(outcome: Outcome) -> float:
    return outcome.seconds if outcome.seconds is not None else math.inf


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Limits of the measurements.

    Parameters
    ----------
    repeats : int, default 7
        Minimum number of rounds.
    seconds : float, default 5
        Rounds continue, up to five times ``repeats``, until a cell has taken this long. A cell that
        takes six times as long ends after three rounds.
    timeout : float, default 300
        Limit of one call in seconds.
    seeds : int, default 3
        Number of random starts, used in turn; all results must be accurate.
    pause : float, default 0
        Seconds to wait before each sample, since threads of the previous one busy-wait for a while.
    for_time : bool, default True
        True: search for the fastest setting. False: use the first accurate setting.
    """

    repeats: int = 7
    seconds: float = 5.0
    timeout: float = 300.0
    seeds: int = 3
    pause: float = 0.0
    for_time: bool = True

    def enough(self, rounds: int, spent: float) -> bool:
        """True if no further round is needed."""
        if rounds >= self.repeats:
            return spent >= self.seconds or rounds >= 5 * self.repeats
        return rounds >= 3 and spent >= 6 * self.seconds


@dataclass
class Outcome:
    """Outcome of a competitor in a cell.

    The status is one of ``"raced"``, ``"slow"`` (dropped after one run), ``"missed"`` (the
    accuracy), ``"failed"`` (with an exception), ``"timed out"`` and ``"crashed"``.
    """

    name: str
    role: str
    status: str
    options: Options = field(default_factory=dict)
    reached: bool = False
    seconds: float | None = None
    error: float | None = None
    note: str = ""
    times: list[float] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as a dict for JSON, without infinity."""
        known = self.error is not None and math.isfinite(self.error)
        return {**self.__dict__, "error": self.error if known else None}
