"""Runs all measurements: each model on each device in a process of its own, then the service on each device."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from semel.backends.devices.cores import usable_cores
from semel.backends.devices.measure import agreement
from semel.cli.bench.figures import Figure, Run
from semel.cli.bench.service import measure_service
from semel.errors import SemelError, UnavailableError
from semel.settings import Settings
from semel.values.vectors import Vectors, unit_rows

_PACKAGES = ("torch", "transformers", "mlx", "onnxruntime", "sentence-transformers", "numpy", "celery", "redis")

_LAST_LINES = 5
"""How many lines of a failed process are looked at: they explain why it failed."""


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long.

    Attributes:
        devices, models: by their names.
        seconds: of one model on one device, and again of the service on one device.
        rounds: in which all measurements take turns.
        starts: how often the start is measured.
    """

    devices: Sequence[str]
    models: Sequence[str]
    seconds: float
    rounds: int
    starts: int


def plan(devices: Sequence[str], models: Sequence[str], *, quick: bool) -> Plan:
    """A plan for about one minute or five, whatever the number of devices and models.

    Starting processes and services takes its time, too: about 8 s for each model on a device, 20 s for each service.
    """
    pairs = len(devices) * len(models)
    total_s, starts = (50, 1) if quick else (285, 2)
    left_s = total_s - 8 * starts * pairs - 20 * len(devices)
    return Plan(devices, models, max(4.0, left_s / (pairs + len(devices))), 3 if quick else 5, starts)


def measure(plan: Plan, settings: Settings, *, show: Callable[[str, float], None]) -> Run:
    """Measure, and return all figures; what fails is left out, with its reason.

    Args:
        settings: with the models.
        show: called with what is measured, and the share of it that has ended.
    """
    figures: list[Figure] = []
    left_out: dict[str, str] = {}
    for model in plan.models:
        vectors: dict[str, Vectors] = {}
        for device in plan.devices:
            name = f"{model} on {device}"
            try:
                found, rows = _in_child(plan, device, model, show=partial(show, name))
            except SemelError as error:
                left_out[name] = str(error)
                continue
            figures += found
            if rows is not None:
                vectors[device] = rows
        figures += _quality(model, vectors)
    model = settings.default_model if settings.default_model in plan.models else plan.models[0]
    for device in plan.devices:
        name = f"the service on {device}"
        try:
            figures += measure_service(
                device,
                model,
                config=_config(settings),
                seconds=plan.seconds,
                rounds=plan.rounds,
                done=partial(show, name),
            )
        except SemelError as error:
            left_out[name] = str(error)
    return Run(about(), figures, left_out)


def _config(settings: Settings) -> str:
    """The content of the semel.toml that the settings were read from; empty if there is none."""
    path = settings.toml_path
    return path.read_text() if path.is_file() else ""


def _in_child(
    plan: Plan, device: str, model: str, *, show: Callable[[float], None]
) -> tuple[list[Figure], Vectors | None]:
    """The figures of one model on one device, and its vectors if it embeds. Raises UnavailableError."""
    starts: list[float] = []
    for number in range(plan.starts):
        last = number == plan.starts - 1
        with tempfile.TemporaryDirectory() as home:
            ready_s, content = _child(home, device, model, plan if last else None, show)
            starts.append(ready_s)
            if content is not None:
                rows = Path(home) / "vectors.npy"
                vectors = np.load(rows) if rows.exists() else None
                figures = [Figure(**each) for each in content]
    return [Figure("start", "first text of a new process", device, model, "s", starts), *figures], vectors


def _child(
    home: str, device: str, model: str, plan: Plan | None, show: Callable[[float], None]
) -> tuple[float, list[dict[str, Any]] | None]:
    """Seconds to the first text of a new process, and its figures; without a plan it ends after that text."""
    arguments = [
        device,
        model,
        str(plan.seconds if plan else 0),
        str(plan.rounds if plan else 0),
        f"{home}/vectors.npy",
    ]
    started, ready_s, figures = time.perf_counter(), 0.0, None
    log = Path(home) / "log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "semel.cli.bench.child", *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "SEMEL_HOME": home, "SEMEL_DATABASE_URL": f"sqlite:///{home}/semel.db"},
        ) as process,
    ):
        assert process.stdout is not None  # PIPE above
        try:
            for line in process.stdout:
                event = json.loads(line)
                if "ready" in event:
                    ready_s = time.perf_counter() - started
                if "done" in event:
                    show(event["done"])
                figures = event.get("figures", figures)
        except BaseException:  # Ctrl-C: nothing stays behind
            process.kill()
            raise
    if process.returncode or (plan is not None and figures is None):
        lines = log.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:]
        raise UnavailableError(lines[-1] if lines else f"the process ended with code {process.returncode}")
    return ready_s, figures


def _quality(model: str, vectors: dict[str, Vectors]) -> list[Figure]:
    """How far the devices agree: the cosines of equal texts, and the ranks of all other texts for each."""
    found = []
    for one, other, lowest, mean in agreement(vectors):
        devices = f"{one}, {other}"
        for name, value in (("lowest cosine", lowest), ("mean cosine", mean)):
            found.append(Figure("quality", name, devices, model, "cosine", [value], True))
        ranks = [_ranks(vectors[each]) for each in (one, other)]
        same = float(np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(*ranks, strict=True)]))
        found.append(Figure("quality", "agreement of ranks (Spearman)", devices, model, "correlation", [same], True))
    return found


def _ranks(vectors: Vectors) -> "np.ndarray[Any, Any]":
    """For each text, the ranks of all others by their cosine; int (n, n - 1)."""
    rows = unit_rows(vectors)
    n = len(rows)
    others = (rows @ rows.T)[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    return others.argsort(axis=1).argsort(axis=1)


def about() -> dict[str, str]:
    """The machine and the versions."""
    found = {
        "semel": version("semel"),
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "processor": _processor(),
        "cores": str(usable_cores()),
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """The model of the processor, and which of the instructions that matter for models it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    values = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    flags = set((values.get("flags") or values.get("Features") or "").split())
    known = [
        flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "bf16", "sve") if flag in flags
    ]
    return f"{values.get('model name', platform.machine()).strip()} ({' '.join(known) or 'no vector extensions'})"
