"""The models of one device: what fits, what makes room, and names that a device serves differently."""

import threading
from pathlib import Path

import pytest

from semel.backends.engine import Engine
from semel.errors import ModelLoadError
from semel.settings import Settings
from semel.tasks.worker import models as loaded_module
from semel.tasks.worker.models import LoadedModels
from semel.values.model import ModelEntry
from tests.support.processes import wait_until


def models(home: Path, engine: Engine, *, most: int | None = None, device: str = "cpu") -> LoadedModels:
    entries = {name: ModelEntry(f"fake:?dim={dim}&weight_bytes=40") for name, dim in (("a", 8), ("b", 9), ("c", 10))}
    entries["huge"] = ModelEntry("fake:?weight_bytes=1000")
    entries["own"] = ModelEntry("fake:?dim=8", source_mlx="fake:?dim=12")
    return LoadedModels(Settings(home=home, models=entries, max_model_bytes=most), engine, device=device)


@pytest.fixture
def engine() -> "Engine":
    return Engine()


def names(loaded: LoadedModels) -> list[str]:
    return [model.spaces[""].model for model in loaded.loaded()]


def test_the_model_that_was_idle_for_longest_makes_room(tmp_path: Path, engine: Engine) -> None:
    loaded = models(tmp_path, engine, most=100)
    loaded.get("a")
    loaded.get("b")
    loaded.get("a")
    loaded.get("c")
    assert names(loaded) == ["a", "c"]
    loaded.get("b")
    assert names(loaded) == ["c", "b"]


def test_without_a_bound_all_stay(tmp_path: Path, engine: Engine) -> None:
    loaded = models(tmp_path, engine)
    for name in ("a", "b", "c", "huge"):
        loaded.get(name)
    assert names(loaded) == ["a", "b", "c", "huge"]


def test_a_model_that_never_fits_is_refused_before_it_is_loaded(tmp_path: Path, engine: Engine) -> None:
    loaded = models(tmp_path, engine, most=100)
    loaded.get("a")
    with pytest.raises(
        ModelLoadError, match=r"'huge' has 1,000 bytes of weights, and SEMEL_MAX_MODEL_BYTES allows 100"
    ):
        loaded.get("huge")
    assert names(loaded) == ["a"], "nothing was unloaded for it"


def test_a_model_in_use_is_waited_for(tmp_path: Path, engine: Engine) -> None:
    loaded = models(tmp_path, engine, most=60)
    asked = threading.Thread(target=lambda: loaded.get("b"))
    with loaded.using("a"):
        asked.start()
        asked.join(0.3)
        assert names(loaded) == ["a"]
    asked.join(5)
    wait_until(lambda: names(loaded) == ["b"])


def test_a_source_of_its_own_is_another_model_on_that_device(tmp_path: Path, engine: Engine) -> None:
    there, here = models(tmp_path, engine, device="mlx"), models(tmp_path, engine, device="cpu")
    assert there.full_name("own") == "own@mlx"
    assert here.full_name("own") == "own"
    assert there.spaces("own")[""].model == "own@mlx"
    assert there.spaces("own")[""].fingerprint != here.spaces("own")[""].fingerprint
    assert there.spaces("a")[""].fingerprint == here.spaces("a")[""].fingerprint


def test_a_model_that_waits_for_room_gets_it_from_one_that_is_always_busy(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_module, "_PATIENCE_S", 0.2)
    loaded, stop = models(tmp_path, engine, most=60), threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            with loaded.using("a"):
                stop.wait(0.05)

    busy = [threading.Thread(target=keep_busy) for _ in range(3)]  # overlapping: never idle by itself
    for thread in busy:
        thread.start()
    wait_until(lambda: names(loaded) == ["a"])
    got = threading.Event()
    asked = threading.Thread(target=lambda: (loaded.get("b"), got.set()))
    asked.start()
    try:
        assert got.wait(10), "starved"
    finally:
        stop.set()
        for thread in [*busy, asked]:
            thread.join(10)
    with pytest.raises(ModelLoadError):
        loaded.get("huge")
    loaded.get("a")  # nobody is kept out by what went wrong
