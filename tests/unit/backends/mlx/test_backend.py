"""What the MLX backend does around a model: shapes, checks, dtypes. numpy stands in for mlx.core."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from semel.backends.base import Tokens
from semel.backends.mlx import backend as backend_module
from semel.backends.mlx.backend import MlxBackend, import_mlx
from semel.backends.shared.pooling import Head
from semel.errors import BackendError, DeviceMemoryError, ModelLoadError
from semel.values.model import Precision
from tests.support.model_files import source, write_model


class Encoder:
    """Hidden states (texts, tokens, 2): the id and its square; records its shapes."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.error: Exception | None = None

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if self.error is not None:
            raise self.error
        assert mask.any(axis=1).all(), "a row is all padding"
        self.shapes.append(ids.shape)
        return np.stack([ids, ids**2], axis=2).astype(np.float32)


def numpy_as_mlx(*, metal: bool = False) -> Any:
    return SimpleNamespace(
        __version__="0.32",
        array=np.asarray,
        float32=np.float32,
        metal=SimpleNamespace(is_available=lambda: metal),
        clear_cache=lambda: None,
        set_cache_limit=lambda size: None,
    )


def loaded(folder: Path, *, metal: bool = False, **entry: Any) -> MlxBackend:
    backend = MlxBackend(source(write_model(folder), **entry))
    backend._mx = numpy_as_mlx(metal=metal)
    backend._model, backend._head = Encoder(), Head(["mean"])
    backend._tokenizer = SimpleNamespace(pad_id=0)  # type: ignore[assignment]
    backend._dtype, backend._why, backend._weight_bytes = "float32", "a reason", 7
    return backend


def batch(*texts: list[int]) -> list[Tokens]:
    return [Tokens(ids, truncated=False) for ids in texts]


def test_vectors_are_pooled_over_the_tokens_and_not_the_padding(tmp_path: Path) -> None:
    vectors = loaded(tmp_path).forward(batch([1, 3], [5]))
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[2, 5], [5, 25]]


def test_batches_have_few_shapes_and_no_further_rows(tmp_path: Path) -> None:
    backend = loaded(tmp_path)
    vectors = backend.forward(batch(*[[1] * 17] * 33))
    assert backend._model.shapes == [(36, 18)]
    assert vectors.shape == (33, 2)


def test_no_batch_is_longer_than_the_model_reads(tmp_path: Path) -> None:
    backend = loaded(tmp_path)
    backend.forward(batch([1] * 63))
    assert backend._model.shapes == [(1, 64)]


def test_a_token_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="token 10 is not in the model's vocabulary of 10 tokens"):
        loaded(tmp_path).forward(batch([1, 10]))


@pytest.mark.parametrize("message", ["[malloc_or_wait] Unable to allocate", "Insufficient Memory"])
def test_a_lack_of_memory_is_named_with_its_tokens(tmp_path: Path, message: str) -> None:
    backend = loaded(tmp_path)
    backend._model.error = RuntimeError(message)
    with pytest.raises(DeviceMemoryError, match="mlx has no memory for 3 tokens"):
        backend.forward(batch([1, 2], [3]))


def test_another_error_of_mlx_is_passed_on(tmp_path: Path) -> None:
    backend = loaded(tmp_path)
    backend._model.error = RuntimeError("shapes do not match")
    with pytest.raises(RuntimeError, match="shapes do not match"):
        backend.forward(batch([1]))


@pytest.mark.parametrize("normalize", [True, False])
def test_vectors_have_the_length_that_the_model_gives_and_the_definition_scales_them_later(
    tmp_path: Path, normalize: bool
) -> None:
    backend = loaded(tmp_path, normalize=normalize)
    assert backend.forward(batch([5])).tolist() == [[5, 25]]
    assert backend.get_model_info().normalizes is normalize


@pytest.mark.parametrize(("metal", "max_batch_tokens"), [(True, 16384), (False, 1024)])
def test_the_batch_size_suits_the_gpu_or_the_cpu(tmp_path: Path, metal: bool, max_batch_tokens: int) -> None:
    info = loaded(tmp_path, metal=metal).get_model_info()
    assert (info.name, info.backend, info.device, info.dim) == ("m", "mlx-0.32", "mlx", 8)
    assert (info.max_tokens, info.max_batch_tokens, info.weight_bytes) == (64, max_batch_tokens, 7)


def test_closing_drops_the_model_and_the_buffers(tmp_path: Path) -> None:
    backend = loaded(tmp_path)
    cleared: list[bool] = []
    backend._mx.clear_cache = lambda: cleared.append(True)
    backend.close()
    assert (backend._model, backend._head, cleared) == (None, None, [True])


class Module:
    """A module of mlx.nn with one weight."""

    dtype: Any = None

    def set_dtype(self, dtype: Any) -> None:
        self.dtype = dtype

    def parameters(self) -> dict[str, Any]:
        return {"layer": {"weight": SimpleNamespace(nbytes=12), "bias": SimpleNamespace(nbytes=4)}}


@pytest.mark.parametrize(
    ("metal", "entry", "config", "dtype", "why"),
    [
        (True, {}, {}, "float16", "float16: a Metal GPU is fast in it"),
        (False, {}, {}, "float32", "float32: MLX on a CPU computes in it"),
        (True, {"precision": Precision.FLOAT32}, {}, "float32", "float32: the model's entry asks for it"),
        (True, {}, {"quantization": {"bits": 4}}, "float16", "4-bit weights; float16: a Metal GPU is fast in it"),
    ],
)
def test_the_dtype_suits_the_device_and_has_a_reason(
    tmp_path: Path, metal: bool, entry: dict[str, Any], config: dict[str, Any], dtype: str, why: str
) -> None:
    backend, module = MlxBackend(source(write_model(tmp_path, **config), **entry)), Module()
    metal_of = SimpleNamespace(is_available=lambda: metal)
    backend._mx = SimpleNamespace(float32="mlx.core.float32", metal=metal_of, eval=lambda parameters: None)
    backend._cast(module, half="mlx.core.float16")
    assert (module.dtype, backend._dtype, backend._why) == (f"mlx.core.{dtype}", dtype, why)
    assert backend._weight_bytes == 16


def opened(folder: Path, *, files: dict[str, Any] | None = None, **config: Any) -> Any:
    backend = MlxBackend(source(write_model(folder, files=files, **config)))
    backend._kind = config.get("model_type", "bert")
    return backend._open(with_head=False)


def test_weights_must_be_safetensors(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    backend = MlxBackend(source(tmp_path))
    with pytest.raises(ModelLoadError, match=rf"reads weights from \*\.safetensors, and {tmp_path} has none; save it"):
        backend._open(with_head=False)


def test_another_architecture_names_the_backend_that_runs_it(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"is a t5, which the MLX backend does not run .* --device cpu, cuda"):
        opened(tmp_path, model_type="t5")


def build(backend: MlxBackend, function: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Load with a stand-in for the building of the model."""
    monkeypatch.setattr(backend_module, "import_mlx", numpy_as_mlx)
    monkeypatch.setattr(backend, "_build", function)
    backend.load()


def test_a_model_that_does_not_fit_into_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise MemoryError("48 GB")

    with pytest.raises(ModelLoadError, match="model 'm' does not fit into memory: 48 GB"):
        build(MlxBackend(source(write_model(tmp_path))), fail, monkeypatch)


def test_a_model_with_too_few_positions_is_refused_before_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = MlxBackend(source(write_model(tmp_path), max_tokens=65))
    with pytest.raises(ModelLoadError, match="positions for 64 tokens"):
        build(backend, lambda: pytest.fail("it was built"), monkeypatch)


def test_a_model_must_return_the_length_that_its_files_define(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = loaded(tmp_path)
    monkeypatch.setattr(backend, "_open", lambda *, with_head: Encoder())
    monkeypatch.setattr(backend_module, "load_tokenizer", lambda source: None)
    tokenizer = SimpleNamespace(pad_id=0, tokenize=lambda texts, prompt, variant: batch([1]))
    monkeypatch.setattr(backend_module, "TextTokenizer", lambda *_, **__: tokenizer)
    with pytest.raises(ModelLoadError, match="its files define 8 dimensions, but it returns 2"):
        backend._build()


def test_without_mlx_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    with pytest.raises(ModelLoadError, match=r"cannot import mlx \(.*\): pip install 'semel\[mlx\]'"):
        import_mlx()
