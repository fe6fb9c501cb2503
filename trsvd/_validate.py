"""Checks of arguments. Messages give the value, the reason and advice."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np


def check_k(k: int, rank: int) -> int:
    if isinstance(k, (bool, np.bool_)):
        raise TypeError(f"k={k} is a truth value; pass the number of triplets")
    try:
        k = operator.index(k)
    except TypeError:
        raise TypeError(f"k={k!r} is not an integer; pass the number of triplets") from None
    if not 1 <= k <= rank:
        raise ValueError(
            f"k={k} is out of range; A has min(m, n) = {rank} triplets, so 1 <= k <= {rank}"
        )
    return k


def check_number(name: str, value: Any) -> float:
    """Return a real number as float; TypeError for anything else, strings included."""
    try:
        number = None if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError):
        number = None
    if number is None:
        raise TypeError(f"{name}={value!r} is not a number; pass a number")
    return number


def check_flag(name: str, value: Any) -> bool:
    """Return a truth value as bool; TypeError for anything else, numbers and strings included."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}={value!r} is not a truth value; pass True or False")
    return bool(value)


def check_tol(tol: Any, eps: float) -> float:
    if tol is None:
        return float(eps**0.75)
    tol = check_number("tol", tol)
    if not 0 <= tol < 1:
        raise ValueError(
            f"tol={tol}; the relative residual must be at least 0 and below 1, which any vectors "
            "reach"
        )
    return float(tol)


def check_rng(rng: Any) -> np.random.Generator:
    """Return the generator for a seed or a generator."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"rng={rng!r} is not a seed ({error}); pass an integer of at least 0, or a Generator"
        ) from None


def is_seed(rng: Any) -> bool:
    """True if it is a seed; its generator is created later, as that costs as much as a product."""
    return type(rng) is int and rng >= 0


def check_seconds(time_limit: Any) -> float | None:
    """Return a time limit as a float; None stays None."""
    if time_limit is None:
        return None
    seconds = check_number("time_limit", time_limit)
    if not seconds > 0:
        raise ValueError(f"time_limit={time_limit!r}; pass a positive number of seconds, or None")
    return seconds


def check_cap(max_matvecs: int) -> int:
    try:
        cap = operator.index(max_matvecs)
    except TypeError:
        raise TypeError(
            f"max_matvecs={max_matvecs!r} is not an integer; pass a number of products, or None"
        ) from None
    if cap < 1:
        raise ValueError(f"max_matvecs={cap}; at least one product is needed")
    return cap
