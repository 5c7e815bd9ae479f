"""What the Vulkan backend does around a session: parts of a batch, checks, memory errors. No graph is run."""

import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from semel.backends.base import SAMPLE_PAIRS, Tokens
from semel.backends.shared import turns
from semel.backends.shared.pooling import Head
from semel.backends.vulkan import backend as backend_module
from semel.backends.vulkan.backend import VulkanBackend, VulkanReranker
from semel.backends.vulkan.export import Exported
from semel.errors import BackendError, DeviceMemoryError, ModelLoadError
from semel.values.text import Pair
from semel.values.variant import Variant
from tests.support.model_files import source, write_model

WORDS = np.stack([np.arange(10), np.arange(10) ** 2], axis=1).astype(np.float32)
"""The embedding of a token is its id and its square."""


class Session:
    """A graph whose hidden states are its inputs; records the shapes of the masks."""

    def __init__(self) -> None:
        self.masks: list[tuple[int, ...]] = []
        self.inputs: dict[str, Any] = {}
        self.error: Exception | None = None

    def run(self, names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        if self.error is not None:
            raise self.error
        assert inputs["mask"].dtype == np.float32, "a boolean mask gives wrong vectors"
        self.masks.append(inputs["mask"].shape)
        self.inputs = inputs
        return [inputs["embeds"]]


def graph(*, heads: int = 2, inner: int = 16, segments: bool = False, off: float = 0.0) -> Exported:
    ids = np.array([[1, 2, 3], [4, 1, 1]])
    mask = np.array([[1, 1, 1], [1, 0, 0]])
    answer = WORDS[ids].copy()
    answer[0, 2, 1] += off
    return Exported(b"onnx", WORDS, ids, mask, answer, heads, inner, segments)


def loaded(folder: Path, exported: Exported | None = None, **entry: Any) -> VulkanBackend:
    backend = VulkanBackend(source(write_model(folder), **entry), device="vulkan:0", converted=folder)
    backend._graph, backend._session = exported or graph(), Session()
    backend._head = Head(["mean"])
    backend._tokenizer = SimpleNamespace(pad_id=0)  # type: ignore[assignment]
    backend._version = "1.31"
    return backend


def batch(*texts: list[int]) -> list[Tokens]:
    return [Tokens(ids, truncated=False) for ids in texts]


def test_words_are_looked_up_on_the_host_and_pooled_without_padding(tmp_path: Path) -> None:
    backend = loaded(tmp_path)
    vectors = backend.forward(batch([1, 3], [5]))
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[2, 5], [5, 25]]
    assert "segments" not in backend._session.inputs


def test_lengths_are_rounded_up_but_not_above_the_limit_of_the_model(tmp_path: Path) -> None:
    backend = loaded(tmp_path)
    for length in (17, 63):
        backend.forward(batch([1] * length))
    assert backend._session.masks == [(1, 18), (1, 64)]


@pytest.mark.parametrize(
    ("heads", "inner", "texts"),
    [(2, 16, 4 * 2 * 16 * 16), (1, 64, 4 * 64 * 16)],
    ids=["attention", "feed-forward"],
)
def test_a_batch_is_split_so_that_no_tensor_reaches_the_limit(
    tmp_path: Path, heads: int, inner: int, texts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = loaded(tmp_path, graph(heads=heads, inner=inner))
    monkeypatch.setattr(backend_module, "LIMIT_BYTES", 3 * texts + 1)  # three texts of 16 tokens
    vectors = backend.forward(batch(*[[i % 10] * 16 for i in range(8)]))
    assert backend._session.masks == [(3, 16), (3, 16), (2, 16)]
    assert vectors[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_a_text_that_exceeds_the_limit_alone_is_refused_with_the_length_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, exported = loaded(tmp_path), graph()
    backend._check_longest(exported)
    monkeypatch.setattr(backend_module, "LIMIT_BYTES", 4 * 2 * 50 * 50 + 1)
    with pytest.raises(
        ModelLoadError, match="reads texts of 64 tokens, but Vulkan can run only 50: add max_tokens = 50"
    ):
        backend._check_longest(exported)
    loaded(tmp_path, max_tokens=50)._check_longest(exported)


def test_a_graph_with_segments_gets_them(tmp_path: Path) -> None:
    backend = loaded(tmp_path, graph(segments=True))
    backend.forward([Tokens([1, 2, 3], truncated=False, segments=[0, 1, 1]), Tokens([4], truncated=False)])
    assert backend._session.inputs["segments"].tolist() == [[0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("message", ["Out of memory", "failed to allocate memory for the buffer"])
def test_a_lack_of_memory_is_named_with_its_tokens(tmp_path: Path, message: str) -> None:
    backend = loaded(tmp_path)
    backend._session.error = RuntimeError(message)
    with pytest.raises(DeviceMemoryError, match="vulkan:0 has no memory for 6 tokens"):
        backend.forward(batch([1, 2, 3], [4]))


def test_another_error_of_onnx_runtime_is_passed_on(tmp_path: Path) -> None:
    backend = loaded(tmp_path)
    backend._session.error = RuntimeError("the device was lost")
    with pytest.raises(RuntimeError, match="the device was lost"):
        backend.forward(batch([1]))


def test_a_session_that_gives_the_numbers_of_torch_passes(tmp_path: Path) -> None:
    loaded(tmp_path)._check_session(graph(off=0.001))


@pytest.mark.parametrize(("off", "shown"), [(0.01, r"0\.01"), (float("nan"), "nan")])
def test_a_session_with_other_numbers_is_refused(tmp_path: Path, off: float, shown: str) -> None:
    with pytest.raises(BackendError, match=f"self-test with model 'm': its numbers are off by {shown} where 0.002 is"):
        loaded(tmp_path)._check_session(graph(off=off))


def test_the_states_of_padding_are_not_compared(tmp_path: Path) -> None:
    exported = graph()
    exported.check_answer[1, 1:] = 1000
    loaded(tmp_path)._check_session(exported)


def test_the_model_info_names_runtime_and_dtype(tmp_path: Path) -> None:
    info = loaded(tmp_path).get_model_info()
    assert (info.backend, info.device, info.dtype) == ("onnxruntime-webgpu-1.31", "vulkan:0", "float32")
    assert info.why.startswith("float32: ")
    assert (info.dim, info.max_tokens, info.weight_bytes) == (8, 64, len(b"onnx"))


@pytest.mark.parametrize("missing", ["onnxruntime", "onnxruntime_ep_webgpu"])
def test_a_missing_package_says_what_to_install(tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "onnxruntime_ep_webgpu"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__version__="1.31"))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModelLoadError, match=r"the Vulkan backend needs .*pip install 'semel\[vulkan\]'"):
        VulkanBackend(source(write_model(tmp_path)), device="vulkan:0", converted=tmp_path).load()


def test_loading_checks_the_session_before_the_first_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "onnxruntime_ep_webgpu"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__version__="1.31"))
    monkeypatch.setattr(backend_module, "load_tokenizer", lambda source: None)
    monkeypatch.setattr(backend_module, "TextTokenizer", lambda *_, **__: None)
    monkeypatch.setattr(backend_module, "exported", lambda source, folder: graph(off=off))
    monkeypatch.setattr(backend_module, "open_session", lambda onnx: Session())
    backend = VulkanBackend(source(write_model(tmp_path)), device="vulkan:0", converted=tmp_path)
    off = 0.0
    backend.load()
    off = 0.1
    with pytest.raises(BackendError, match="failed its self-test"):
        backend.load()
    backend.close()
    assert (backend._session, backend._graph) == (None, None)


def test_sessions_are_opened_run_and_freed_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = list[bool]()

    def look() -> None:
        free = turns.computing.acquire(blocking=False)
        held.append(not free)
        if free:
            turns.computing.release()

    def in_another_thread() -> None:
        looking = threading.Thread(target=look)
        looking.start()
        looking.join()

    class Watched(Session):
        def __init__(self) -> None:
            super().__init__()
            in_another_thread()

        def run(self, names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            in_another_thread()
            return super().run(names, inputs)

        def __del__(self) -> None:
            in_another_thread()

    for name in ("onnxruntime", "onnxruntime_ep_webgpu"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__version__="1.31"))
    monkeypatch.setattr(backend_module, "load_tokenizer", lambda source: None)
    monkeypatch.setattr(backend_module, "TextTokenizer", lambda *_, **__: SimpleNamespace(pad_id=0))
    monkeypatch.setattr(backend_module, "exported", lambda source, folder: graph())
    monkeypatch.setattr(backend_module, "open_session", lambda onnx: Watched())
    backend = VulkanBackend(source(write_model(tmp_path)), device="vulkan:0", converted=tmp_path)
    backend.load()
    backend.forward(batch([1, 2]))
    backend.close()
    assert held == [True] * 4, "opened, checked, run, freed"


def test_vectors_have_the_length_that_the_model_gives_and_the_definition_scales_them_later(tmp_path: Path) -> None:
    for normalize in (True, False):
        backend = loaded(tmp_path, normalize=normalize)
        assert backend.forward(batch([5])).tolist() == [[5, 25]]
        assert backend.get_model_info().normalizes is normalize


def test_a_reranker_returns_the_logits_of_pairs(tmp_path: Path) -> None:
    write_model(tmp_path, architectures=["BertForSequenceClassification"], id2label={"0": "x"})
    backend = VulkanReranker(source(tmp_path, kind="cross-encoder"), device="vulkan:0", converted=tmp_path)
    backend._tokenizer = SimpleNamespace(tokenize_pairs=lambda pairs, prompt, variant: (pairs, prompt, variant))  # type: ignore[assignment]
    assert backend._finish(np.array([[1.5]], np.float32), []).tolist() == [[1.5]]
    assert backend.samples() is SAMPLE_PAIRS
    pairs, left = [Pair("q", "d")], Variant(truncate_side="left")
    assert backend.tokenize(pairs, prompt="p", variant=left) == (pairs, "p", left)
