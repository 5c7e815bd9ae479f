"""Which backend runs a model on which device, and which precisions a device refuses."""

from pathlib import Path
from typing import Any

import pytest

from semel.backends.base import Backend
from semel.backends.fake import FakeBackend
from semel.backends.mlx.backend import MlxBackend
from semel.backends.mlx.rerank import MlxReranker
from semel.backends.models.factory import BACKENDS, create_backend
from semel.backends.torch.backend import TorchBackend
from semel.backends.torch.rerank import TorchReranker
from semel.backends.vulkan.backend import VulkanBackend, VulkanReranker
from semel.errors import BadInputError, ModelLoadError
from semel.values.device import KINDS
from semel.values.model import Precision
from tests.support.model_files import source, write_model


def test_every_kind_of_device_has_a_framework() -> None:
    assert set(BACKENDS) == set(KINDS)


@pytest.mark.parametrize(
    ("device", "embeds", "reranks"),
    [
        ("cpu", TorchBackend, TorchReranker),
        ("cuda:1", TorchBackend, TorchReranker),
        ("mps", TorchBackend, TorchReranker),
        ("mlx", MlxBackend, MlxReranker),
        ("vulkan:0", VulkanBackend, VulkanReranker),
    ],
)
def test_a_device_runs_models_and_cross_encoders_on_its_framework(
    tmp_path: Path, device: str, embeds: type[Backend], reranks: type[Backend]
) -> None:
    write_model(tmp_path)
    assert type(create_backend(source(tmp_path), device)) is embeds
    assert type(create_backend(source(tmp_path, kind="cross-encoder"), device)) is reranks


@pytest.mark.parametrize(
    ("device", "anywhere"), [("cpu", True), ("cuda:1", True), ("mps", False), ("mlx", False), ("vulkan:0", True)]
)
def test_only_frameworks_that_tie_a_model_to_a_thread_load_it_on_the_device_thread(
    tmp_path: Path, device: str, anywhere: bool
) -> None:
    write_model(tmp_path)
    for kind in ("embed", "cross-encoder"):
        backend = create_backend(source(tmp_path, kind=kind), device)
        assert (backend.name, backend.loads_in_any_thread) == ("m", anywhere)
    assert create_backend(source("fake:?dim=3"), device).loads_in_any_thread


@pytest.mark.parametrize("device", ["cpu", "cuda:0", "mlx", "vulkan:0"])
def test_a_fake_model_runs_on_every_device(device: str) -> None:
    backend = create_backend(source("fake:?dim=3"), device)
    assert isinstance(backend, FakeBackend)
    info = backend.get_model_info()
    assert (info.device, info.dim) == (device, 3)


def test_a_fake_cross_encoder_gives_scores() -> None:
    backend = create_backend(source("fake:?dim=3", kind="cross-encoder"), "cpu")
    assert backend.get_model_info().dim == 1


def test_an_unknown_option_of_a_fake_model_is_refused() -> None:
    with pytest.raises(BadInputError, match="no option 'size'"):
        create_backend(source("fake:?size=3"), "cpu")


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
@pytest.mark.parametrize("device", ["mlx", "mps", "vulkan:0"])
def test_a_device_that_cannot_quantise_says_where_it_works(tmp_path: Path, device: str, precision: Precision) -> None:
    model = source(write_model(tmp_path), precision=precision)
    with pytest.raises(ModelLoadError, match=f"model 'm': {device} cannot quantise, so precision {precision} needs"):
        create_backend(model, device)


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_cpu_and_cuda_quantise(tmp_path: Path, device: str) -> None:
    model = source(write_model(tmp_path), precision=Precision.INT8)
    assert isinstance(create_backend(model, device), TorchBackend)


@pytest.mark.parametrize("device", ["cpu", "cuda:0", "mps", "vulkan:0"])
def test_weights_in_the_format_of_mlx_are_refused_elsewhere(tmp_path: Path, device: str) -> None:
    model = source(write_model(tmp_path, quantization={"bits": 4}))
    with pytest.raises(ModelLoadError, match=rf"holds int4 weights in MLX's format, which {device} cannot read; make"):
        create_backend(model, device)


@pytest.mark.parametrize("entry", [{}, {"precision": Precision.INT4}])
def test_mlx_runs_weights_that_are_stored_quantised(tmp_path: Path, entry: dict[str, Any]) -> None:
    model = source(write_model(tmp_path, quantization={"bits": 4}), **entry)
    assert isinstance(create_backend(model, "mlx"), MlxBackend)


def test_a_model_without_files_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ModelLoadError, match="there is no folder /nowhere"):
        create_backend(source("/nowhere"), "cpu")
