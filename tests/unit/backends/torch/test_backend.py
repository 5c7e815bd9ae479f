"""What the torch backend does around a model: threads, padding, memory errors. No model is loaded."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from semel.backends.base import Tokens
from semel.backends.torch import backend as backend_module
from semel.backends.torch import cpu
from semel.backends.torch.backend import TorchBackend, weight_bytes
from semel.backends.torch.library import import_torch
from semel.errors import DeviceMemoryError, ModelLoadError
from semel.values.model import Precision
from tests.support.model_files import source, write_model, write_sentence_model


class Calls:
    """Records the calls of functions by name."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Any]] = []

    def record(self, name: str) -> Any:
        return lambda *arguments: self.made.append((name, *arguments))


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def settings(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The real torch, whose settings of the process are recorded and not made."""
    for name in ("set_num_threads", "set_flush_denormal", "set_float32_matmul_precision"):
        monkeypatch.setattr(torch, name, calls.record(name))
    monkeypatch.setattr(cpu, "keep_memory", calls.record("keep_memory"))
    return calls


class Words(TorchBackend):
    """A backend whose vector of a text is (tokens, 1)."""

    error: Exception | None = None

    def _pooled(self, batch: Sequence[Tokens]) -> Any:
        if self.error is not None:
            raise self.error
        return torch.tensor([[float(len(tokens.ids)), 1.0] for tokens in batch])


def words(folder: Path, device: str = "cpu", *, threads: int | None = 4, **entry: Any) -> Words:
    backend = Words(source(write_model(folder), **entry), device=device, threads=threads)
    backend._torch = torch
    backend._tf32 = True
    return backend


def batch(*lengths: int) -> list[Tokens]:
    return [Tokens(list(range(1, length + 1)), truncated=False) for length in lengths]


def test_vectors_are_float32_rows_in_order(tmp_path: Path, settings: Calls) -> None:
    vectors = words(tmp_path).forward(batch(3, 1))
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[3, 1], [1, 1]]


@pytest.mark.parametrize("normalize", [True, False])
def test_vectors_have_the_length_that_the_model_gives_and_the_definition_scales_them_later(
    tmp_path: Path, settings: Calls, normalize: bool
) -> None:
    backend = words(tmp_path, normalize=normalize)
    backend._dtype, backend._why, backend._weight_bytes = "float32", "a reason", 7
    assert backend.forward(batch(3)).tolist() == [[3, 1]]
    assert backend.get_model_info().normalizes is normalize


@pytest.mark.parametrize(("lengths", "threads"), [((128,), 1), ((120, 9), 4), ((1, 2), 1)])
def test_a_small_batch_on_the_cpu_runs_on_one_thread_whatever_thread_loaded_the_model(
    tmp_path: Path, settings: Calls, lengths: tuple[int, ...], threads: int
) -> None:
    words(tmp_path).forward(batch(*lengths))
    assert settings.made == [("set_num_threads", threads), ("set_flush_denormal", True)]


@pytest.mark.parametrize(("tf32", "precision"), [(True, "high"), (False, "highest")])
def test_each_batch_on_cuda_sets_the_precision_of_its_model(
    tmp_path: Path, settings: Calls, tf32: bool, precision: str
) -> None:
    backend = words(tmp_path, "cuda:0")
    backend._tf32 = tf32
    backend.forward(batch(2))
    assert settings.made == [("set_float32_matmul_precision", precision)]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 TB")],
)
def test_a_lack_of_memory_is_named_with_its_tokens(tmp_path: Path, settings: Calls, error: Exception) -> None:
    backend = words(tmp_path)
    backend.error = error
    with pytest.raises(DeviceMemoryError, match="cpu has no memory for 5 tokens") as raised:
        backend.forward(batch(2, 3))
    assert raised.value.__cause__ is error


def test_another_error_of_torch_is_passed_on(tmp_path: Path, settings: Calls) -> None:
    backend = words(tmp_path)
    backend.error = RuntimeError("an index is out of range")
    with pytest.raises(RuntimeError, match="an index is out of range"):
        backend.forward(batch(2))


@pytest.mark.parametrize(
    ("device", "entry", "why", "made"),
    [
        ("cpu", {}, "4 threads, denormals flushed", ["set_num_threads", "keep_memory"]),
        ("cuda:0", {}, "TF32 on", []),
        ("cuda:0", {"precision": Precision.FLOAT32}, "TF32 off", []),
        ("mps", {}, "", []),
    ],
)
def test_what_batches_run_with_is_explained(
    tmp_path: Path, settings: Calls, device: str, entry: dict[str, Any], why: str, made: list[str]
) -> None:
    assert words(tmp_path, device, **entry)._prepare_thread() == why
    assert [name for name, *_ in settings.made] == made


def test_without_a_number_of_threads_all_cores_are_used(
    tmp_path: Path, settings: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "usable_cores", lambda: 12)
    assert words(tmp_path, threads=None)._prepare_thread().startswith("12 threads")


@pytest.mark.parametrize("missing", ["torch", "sentence_transformers"])
def test_a_missing_framework_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace())
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModelLoadError, match=r"the torch backend needs .*pip install 'semel\[cpu\]'"):
        import_torch()


def test_a_model_that_cannot_be_loaded_names_its_folder_and_device(tmp_path: Path) -> None:
    def load(*_: object, **__: object) -> None:
        raise OSError("no weights")

    with pytest.raises(ModelLoadError, match=f"model 'm' in {tmp_path} cannot be loaded on cpu: no weights"):
        words(tmp_path)._open(load, torch.float32)


@pytest.mark.parametrize(
    ("device", "precision", "opened_on"),
    [("cuda:0", Precision.FULL, "cuda:0"), ("cuda:0", Precision.INT8, "cpu"), ("cpu", Precision.INT4, "cpu")],
)
def test_weights_that_are_quantised_are_loaded_on_the_cpu(
    tmp_path: Path, device: str, precision: Precision, opened_on: str
) -> None:
    opened = words(tmp_path, device, precision=precision)._open(lambda folder, **options: (folder, options), "a dtype")
    folder, options = opened
    assert (folder, options["device"], options["model_kwargs"]) == (str(tmp_path), opened_on, {"dtype": "a dtype"})
    assert (options["local_files_only"], options["trust_remote_code"]) == (True, False)


def test_a_model_must_return_the_length_that_its_files_define(tmp_path: Path, settings: Calls) -> None:
    backend = words(tmp_path)
    backend._tokenizer = SimpleNamespace(tokenize=lambda texts, prompt, variant: batch(1))  # type: ignore[assignment]
    backend._check_dim(2)
    with pytest.raises(ModelLoadError, match="its files define 8 dimensions, but it returns 2"):
        backend._check_dim(8)


def padded_on(folder: Path, device: str, lengths: tuple[int, ...]) -> tuple[Any, Any]:
    backend = words(folder, device)
    backend._tokenizer = SimpleNamespace(pad_id=9)  # type: ignore[assignment]
    backend._device = "cpu"  # the tensors are made here
    ids, mask = backend._pad(batch(*lengths))
    return ids, mask


def test_a_batch_on_the_cpu_has_its_own_shape(tmp_path: Path) -> None:
    ids, mask = padded_on(tmp_path, "cpu", (17, 2))
    assert tuple(ids.shape) == (2, 17)
    assert ids[1, :3].tolist() == [1, 2, 9]
    assert mask.sum(dim=1).tolist() == [17, 2]


@pytest.mark.parametrize(("length", "padded"), [(17, 18), (33, 36), (63, 64), (64, 64)])
def test_batches_on_mps_have_few_shapes(tmp_path: Path, length: int, padded: int) -> None:
    """64 tokens are the limit of the model."""
    ids, mask = padded_on(tmp_path, "mps", (length,) * 17)
    assert tuple(ids.shape) == (18, padded)
    assert mask.any(dim=1).all(), "no row is all padding"


@pytest.mark.parametrize(("allocated", "freed"), [(69, False), (71, True)])
def test_mps_frees_its_buffers_above_its_share_of_the_memory(
    tmp_path: Path, calls: Calls, allocated: int, freed: bool
) -> None:
    backend = words(tmp_path, "mps")
    mps = SimpleNamespace(
        driver_allocated_memory=lambda: allocated,
        recommended_max_memory=lambda: 100,
        empty_cache=calls.record("empty_cache"),
    )
    backend._torch = SimpleNamespace(mps=mps)
    backend._free_buffers()
    assert bool(calls.made) is freed


@pytest.mark.parametrize(("device", "emptied"), [("cpu", False), ("cuda:1", True), ("mps", True)])
def test_closing_frees_the_memory_of_the_gpu(tmp_path: Path, calls: Calls, device: str, emptied: bool) -> None:
    backend = words(tmp_path, device)
    cache = SimpleNamespace(empty_cache=calls.record("empty_cache"))
    backend._torch = SimpleNamespace(cuda=cache, mps=cache)
    backend._model = "a model"
    backend.close()
    assert backend._model is None
    assert bool(calls.made) is emptied


class Pooling:
    """A Pooling module as the library defines it."""

    def __init__(self, embedding_dimension: int, pooling_mode: str = "mean") -> None:
        self.embedding_dimension, self.pooling_mode = embedding_dimension, pooling_mode


def test_the_pooling_of_the_entry_replaces_that_of_the_files(tmp_path: Path) -> None:
    folder = write_sentence_model(tmp_path, ("Pooling", {"pooling_mode": "mean"}))
    backend = TorchBackend(source(folder, pooling="cls"), device="cpu")
    replaced = backend._with_entry_pooling(Pooling(8))
    assert (type(replaced), replaced.embedding_dimension, replaced.pooling_mode) == (Pooling, 8, "cls")
    other = SimpleNamespace()
    assert backend._with_entry_pooling(other) is other
    kept = Pooling(8)
    assert TorchBackend(source(folder), device="cpu")._with_entry_pooling(kept) is kept


def test_the_memory_of_a_model_counts_weights_and_buffers() -> None:
    class Module:
        def parameters(self) -> list[Any]:
            return [torch.zeros(3, 4), torch.zeros(5, dtype=torch.bfloat16)]

        def buffers(self) -> list[Any]:
            return [torch.zeros(7, dtype=torch.int8)]

    assert weight_bytes(Module()) == 3 * 4 * 4 + 5 * 2 + 7
