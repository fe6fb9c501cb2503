"""One cell of the race, in a process of its own: settings are found, then everybody takes turns."""

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
    """A setting, its time, and what came out."""

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
    """The fastest setting of a competitor that meets the accuracy, outside of the clock.

    Parameters
    ----------
    peer : Peer
        Who.
    task : Task
        What.
    limit : float
        Seconds above which it is out of the race: five times the fastest.
    effort : Effort
        Seeds and timeout.
    announce : callable
        Called with the name and the seconds that a call may take, before each.
    elsewhere : Outcome, optional
        With another number of threads, which no accuracy depends on: what suffices there is not
        looked for again.

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
        # Whoever is too slow is so whatever a longer search would find.
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
"""Seconds that a first call may take longer than the next."""


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
        """One run, judged; None if it raised."""
        call_limit = max(10.0, 3 * self.limit) if math.isfinite(self.limit) else math.inf
        self.announce(self.peer.name, min(self.effort.timeout, call_limit))

        def call() -> Any:
            return self.run(seed, options)

        started = time.perf_counter()
        try:
            seconds, raw = timed(call) if self.cold else (0.0, None)
            # What is made once (imports, compiled code, threads) is on nobody's clock.
            if not self.cold or (self.effort.for_time and seconds < min(20.0, self.limit + _COLD)):
                seconds, raw = timed(call)
            if self.effort.for_time and seconds < 0.05:
                seconds, raw = sample(call, seconds)
            self.cold = False
        except Exception as error:  # a peer may raise anything where it does not converge
            self.failure = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            return None
        finally:
            self.spent += time.perf_counter() - started
        self.least = min(self.least, seconds)
        return _Try(options, seconds, judge(self.task, answer_of(raw)))

    def begun_with(self, elsewhere: Outcome) -> list[_Try]:
        """The setting of another run of this cell, if the same comes of it; [] to look for one.

        Where settings buy no accuracy, all are as fast to try.
        """
        if not self.ladder.option or self.ladder.option not in elsewhere.options:
            return []
        one = self.attempt(elsewhere.options)
        return [one] if one is not None and one.verdict.reached == elsewhere.reached else []

    def all_variants(self) -> Iterator[_Try]:
        """The best of each variant; but one where the first is far too slow, or time is up."""
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
        """The cheapest sufficient value of the ladder; else the nearest to it that was tried."""
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
        """A value that does not suffice (-1 for below the cheapest) and one that does, or None."""
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
        """A search ends when it has taken many times what it could still save."""
        return self.spent > patience * max(4.0, 8 * (one.seconds if one else 0.0))

    def for_all_seeds(self, best: _Try) -> _Try:
        """The same setting, or the next more accurate one, with which every seed succeeds."""
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
    """Tune everybody, let them take turns, and compare.

    Parameters
    ----------
    task : Task
        What is to be computed.
    default, others : Peer
        trsvd, and everybody else.
    ceilings : Ceilings
        Of this machine.
    effort : Effort
        How long.
    known : dict, optional
        Outcomes of a run of this cell that was cut short.
    elsewhere : dict, optional
        Outcomes of this cell with another number of threads.
    announce, tuned : callable
        Told before each call, and after each search.

    Returns
    -------
    dict
        For JSON.
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
    """What a competitor is judged by; for a reference the oracle that it is one of."""
    if peer.role != "reference":
        return task
    cell = replace(task.cell, k=task.one.rank, target=1.0)
    return replace(task, cell=cell)


def _limit(peer: Peer, outcomes: Any) -> float:
    """Seconds above which this competitor is out: five times the fastest of its kind."""
    if peer.role not in {"peer", "own"}:
        return math.inf
    kinds = {"peer"} if peer.role == "peer" else {"own", "trsvd"}
    times = [one.seconds for one in outcomes if one.role in kinds and one.reached]
    return SLOW * min(times, default=math.inf)


def _drop(outcomes: dict[str, Outcome]) -> None:
    """Leave out who turned out to be too slow, once all times are known."""
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
    """Begin anew without those that missed: they may have thrown out who is right."""
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
    """A B C, C B A, ...: what else the machine does hits all of them alike."""
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
    """Every answer counts: one that misses is a miss."""
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
    """How long to measure.

    Parameters
    ----------
    repeats : int, default 7
        Rounds, at least.
    seconds : float, default 5
        More rounds follow, up to five times ``repeats``, until a cell has taken so long. One that
        takes six times as long ends after three rounds.
    timeout : float, default 300
        Seconds for one call.
    seeds : int, default 3
        Random starts that take turns; all of them must come out accurate.
    pause : float, default 0
        Seconds of rest before each sample: threads of the one before wait actively for a while.
    for_time : bool, default True
        Whether times matter. If not, the first accurate setting is good enough.
    """

    repeats: int = 7
    seconds: float = 5.0
    timeout: float = 300.0
    seeds: int = 3
    pause: float = 0.0
    for_time: bool = True

    def enough(self, rounds: int, spent: float) -> bool:
        """Whether no further round is needed."""
        if rounds >= self.repeats:
            return spent >= self.seconds or rounds >= 5 * self.repeats
        return rounds >= 3 and spent >= 6 * self.seconds


@dataclass
class Outcome:
    """What became of a competitor in a cell.

    ``status``: ``"raced"``; ``"slow"``, dropped after one run; ``"missed"``, the accuracy;
    ``"failed"``, with an exception; ``"timed out"``; ``"crashed"``.
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
        """For JSON, which has no infinity."""
        known = self.error is not None and math.isfinite(self.error)
        return {**self.__dict__, "error": self.error if known else None}
