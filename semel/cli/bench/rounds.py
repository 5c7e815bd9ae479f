"""Rounds: all measurements take turns, so that a machine that slows down for a while slows all of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TypeAlias

import numpy as np

from semel.cli.bench.figures import Figure

Measurement: TypeAlias = Callable[[float], Mapping[str, float]]
"""Measures for so many seconds, or once if that takes longer; returns name → value."""

_numbers = count()


def new_texts(size: int) -> list[str]:
    """Texts of about 17 tokens that no cache has yet."""
    return [f"sentence {next(_numbers)} of this run, which is as long as those in many documents" for _ in range(size)]


def in_rounds(
    measurements: Sequence[Measurement], *, seconds: float, rounds: int, done: Callable[[int], None]
) -> dict[str, list[float]]:
    """Run all measurements in each round, and once before, uncounted; returns name → one value for each round.

    The first time, kernels are compiled and connections opened.

    Args:
        seconds: for all of it.
        done: called after each measurement with how many have ended.
    """
    found: dict[str, list[float]] = {}
    slice_s = seconds / rounds / len(measurements)
    for measure in measurements:
        measure(0.0)
    for number in range(rounds):
        for place, measure in enumerate(measurements):
            for name, value in measure(slice_s).items():
                found.setdefault(name, []).append(value)
            done(number * len(measurements) + place + 1)
    return found


def durations_s(work: Callable[[], object], seconds: float, *, least: int = 1) -> list[float]:
    """Seconds of each run of `work`, which runs for some seconds, and at least some times."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < least or time.perf_counter() < end:
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return found


def percentiles_ms(durations: Sequence[float], wanted: Sequence[int], name: str) -> dict[str, float]:
    """Percentiles in milliseconds: `name`, with `pN` for each."""
    return {f"{name}p{each}": float(np.percentile(durations, each)) * 1000 for each in wanted}


def figures(
    group: str, found: Mapping[str, Sequence[float]], *, device: str, model: str, unit: str, higher: bool = False
) -> list[Figure]:
    """Figures of one group and unit."""
    return [Figure(group, name, device, model, unit, values, higher) for name, values in found.items()]
