"""The models of one device: what fits, what makes room, and names that a device serves differently."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from semel.backends.engine import Engine
from semel.errors import BackendError, FingerprintError, ModelLoadError, UnknownModelError
from semel.settings import Settings
from semel.tasks.worker import memory as memory_module
from semel.tasks.worker import models as loaded_module
from semel.tasks.worker.models import LoadedModels
from semel.values.model import ModelEntry
from tests.support.model_files import write_model
from tests.support.processes import wait_until


def models(home: Path, engine: Engine, *, most: int | None = None, device: str = "cpu") -> LoadedModels:
    entries = {name: ModelEntry(f"fake:?dim={dim}&weight_bytes=40") for name, dim in (("a", 8), ("b", 9), ("c", 10))}
    entries["huge"] = ModelEntry("fake:?weight_bytes=1000")
    entries["own"] = ModelEntry("fake:?dim=8", source_mlx="fake:?dim=12")
    return LoadedModels(Settings(home=home, models=entries, max_model_bytes=most), engine, device=device)


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.close()


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
    monkeypatch.setattr(memory_module, "_PATIENCE_S", 0.2)
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
    loaded.get("a")  # the failure blocks no other model


def of(home: Path, engine: Engine, device: str = "auto", **entries: ModelEntry) -> LoadedModels:
    return LoadedModels(Settings(home=home, models=entries), engine, device=device)


def test_an_unknown_model_is_refused_by_name(tmp_path: Path, engine: Engine) -> None:
    with pytest.raises(UnknownModelError, match="'unknown'"):
        models(tmp_path, engine).get("unknown")


def test_each_prompt_has_a_space_of_its_own(tmp_path: Path, engine: Engine) -> None:
    spaces = of(tmp_path, engine, m=ModelEntry("fake:?dim=8", prompts={"query": "find "})).spaces("m")
    assert list(spaces) == ["", "query"]
    assert spaces[""].fingerprint != spaces["query"].fingerprint
    assert {space.dim for space in spaces.values()} == {8}
    assert engine.stats.texts == 0, "a space is known from the files, before the model is loaded"


def test_a_model_whose_files_are_missing_is_not_offered_and_the_others_are(tmp_path: Path, engine: Engine) -> None:
    entries = {"here": ModelEntry("fake:?dim=8"), "gone": ModelEntry(str(tmp_path / "gone"))}
    assert list(of(tmp_path, engine, **entries).available(["gone", "here"])) == ["here"]


@pytest.mark.parametrize(("device", "offered"), [("mlx", []), ("vulkan:0", []), ("cpu", ["labels"])])
def test_a_model_that_the_devices_framework_cannot_run_is_not_offered(
    tmp_path: Path, engine: Engine, device: str, offered: list[str]
) -> None:
    folder = write_model(tmp_path / "labels", architectures=["BertForSequenceClassification"])
    entries = {"labels": ModelEntry(str(folder), kind="classifier")}
    assert list(of(tmp_path, engine, device=device, **entries).available(["labels"])) == offered


def test_a_fake_model_needs_no_device_to_be_found(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_module, "choose_device_for", lambda *_: pytest.fail("this would import frameworks"))
    loaded = of(tmp_path, engine, m=ModelEntry("fake:?dim=8"))
    assert loaded.get("m").producer.device == "cpu"


def test_the_device_is_found_for_a_model_with_a_source_for_it(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_module, "choose_device_for", lambda *_: ("mlx", "a test"))
    loaded = of(tmp_path, engine, m=ModelEntry("fake:?dim=8", source_mlx="fake:?dim=12"))
    assert loaded.full_name("m") == "m@mlx"
    assert loaded.get("m").spaces[""].dim == 12


def test_only_fake_models_need_no_framework(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "all_models", property(lambda self: self.models))
    fake, real = ModelEntry("fake:?dim=8"), ModelEntry("sentence-transformers/all-MiniLM-L6-v2")
    assert of(tmp_path, engine, a=fake, b=fake).all_fake
    assert not of(tmp_path, engine, a=fake, b=real).all_fake


def test_threads_that_need_a_model_at_the_same_moment_load_it_once(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads, create = list[str](), loaded_module.create_backend

    def slowly(*args: object, **options: object) -> object:
        loads.append("load")
        threading.Event().wait(0.05)
        return create(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loaded_module, "create_backend", slowly)
    loaded = of(tmp_path, engine, m=ModelEntry("fake:?dim=8"))
    threads = [threading.Thread(target=loaded.get, args=("m",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == ["load"]


def test_files_that_changed_since_the_start_are_refused_and_not_kept_in_memory(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, find = of(tmp_path, engine, m=ModelEntry("fake:?dim=8")), loaded_module.find_model
    loaded.spaces("m")
    unloaded = list[object]()
    monkeypatch.setattr(engine, "unload", unloaded.append)
    changed = {"m": ModelEntry("fake:?dim=8&weights=b")}
    monkeypatch.setattr(loaded_module, "find_model", lambda name, _entries, **options: find(name, changed, **options))
    with pytest.raises(FingerprintError, match="the files of model 'm' changed since this process started; restart it"):
        loaded.get("m")
    assert (len(unloaded), loaded.loaded()) == (1, [])


def test_a_device_that_fails_while_it_loads_blocks_no_other_model(tmp_path: Path, engine: Engine) -> None:
    loaded = of(tmp_path, engine, broken=ModelEntry("fake:?unfit=broken"), fine=ModelEntry("fake:?dim=8"))
    for _ in range(2):
        with pytest.raises(BackendError):
            loaded.get("broken")
    assert loaded.get("fine").spaces[""].model == "fine"


@pytest.mark.parametrize("held", ["find_model", "create_backend"])
def test_requests_for_a_model_are_answered_while_another_one_is_found_or_loaded(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    entered, gate, real = threading.Event(), threading.Event(), getattr(loaded_module, held)

    def hold(*args: object, **options: object) -> object:
        if args[0] == "slow" or getattr(args[0], "name", "") == "slow":
            entered.set()
            assert gate.wait(10)
        return real(*args, **options)

    monkeypatch.setattr(loaded_module, held, hold)
    loaded = of(tmp_path, engine, slow=ModelEntry("fake:?dim=8"), quick=ModelEntry("fake:?dim=4"))
    loading = threading.Thread(target=loaded.get, args=("slow",))
    loading.start()
    assert entered.wait(10)
    answers = list[int]()

    def ask() -> None:
        with loaded.using("quick") as model:
            answers.extend(index for part in engine.submit(model.backend, ["one"]) for index in part.indices)

    asked = threading.Thread(target=ask)
    asked.start()
    asked.join(5)
    assert (answers, names(loaded)) == ([0], ["quick"])
    gate.set()
    loading.join(10)
    asked.join(10)
    assert names(loaded) == ["quick", "slow"]


def test_the_files_of_a_model_are_read_once_for_all_threads(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, find = list[str](), loaded_module.find_model

    def slowly(name: str, *args: object, **options: object) -> object:
        found.append(name)
        threading.Event().wait(0.05)
        return find(name, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loaded_module, "find_model", slowly)
    loaded = of(tmp_path, engine, m=ModelEntry("fake:?dim=8"))
    threads = [threading.Thread(target=loaded.spaces, args=("m",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["m"]
