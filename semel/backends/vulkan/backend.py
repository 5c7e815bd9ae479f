"""Encoders and cross-encoders on Vulkan, as ONNX graphs on any GPU with a Vulkan driver, in float32.

float16 is off by 2.5e-3 there (measured), which is more than the precision `full` allows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from semel.backends.base import SAMPLE_PAIRS, Backend, ModelInfo, Spelled, Tokens
from semel.backends.batching import bucket
from semel.backends.models.source import ModelSource
from semel.backends.shared import turns
from semel.backends.shared.pooling import read_head
from semel.backends.shared.positions import check_positions
from semel.backends.shared.scoring import check_one_score
from semel.backends.shared.tokenizing import TextTokenizer, load_tokenizer, padded, padded_segments
from semel.backends.vulkan.export import Exported, exported
from semel.backends.vulkan.session import LIMIT_BYTES, open_session
from semel.errors import BackendError, DeviceMemoryError, ModelLoadError
from semel.values.text import Input
from semel.values.variant import AS_DEFINED, Variant
from semel.values.vectors import Vectors

_MAX_BATCH_TOKENS = 8192
"""Padded tokens in a batch; the engine halves it when memory runs out."""

_TOLERANCE = 2e-3
"""The largest allowed difference from torch on the CPU: of logits, or of states that a LayerNorm keeps near 1."""


class VulkanBackend(Backend):
    """An embedding model on Vulkan.

    Args:
        source: the model.
        device: its name, `vulkan:0`.
        converted: folder for exported graphs.
    """

    loads_in_any_thread = True

    def __init__(self, source: ModelSource, *, device: str, converted: Path) -> None:
        self.name = source.name
        self._source = source
        self._device = device
        self._converted = converted
        self._session: Any = None
        self._graph: Exported | None = None

    @override
    def load(self) -> None:
        try:
            import onnxruntime as ort
            import onnxruntime_ep_webgpu  # noqa: F401
        except ImportError as error:
            raise ModelLoadError(f"the Vulkan backend needs {error.name}: pip install 'semel[vulkan]'") from None
        self._version = ort.__version__
        check_positions(self._source)
        self._prepare()
        self._graph = exported(self._source, self._converted)
        self._check_longest(self._graph)
        with turns.computing:
            self._session = open_session(self._graph.graph)
            try:
                self._check_session(self._graph)
            except BaseException:
                self._session = None  # free it before a batch of another model can run
                raise

    def _prepare(self) -> None:
        """Load the tokenizer and the pooling, which run outside the graph. Raises ModelLoadError."""
        source = self._source
        spec = source.described.spec
        self._head = read_head(source.name, source.path, source.modules)
        self._tokenizer = TextTokenizer(source.name, load_tokenizer(source), max_tokens=spec.max_tokens)

    def _check_longest(self, graph: Exported) -> None:
        """Raises ModelLoadError if one text could need a tensor above the device's limit, which gives wrong rows."""
        longest = self._source.described.spec.max_tokens
        if _largest_bytes(graph, longest) < LIMIT_BYTES:
            return
        fits = next(length for length in range(longest, 0, -1) if _largest_bytes(graph, length) < LIMIT_BYTES)
        raise ModelLoadError(
            f"model {self._source.name!r} reads texts of {longest} tokens, but Vulkan can run only {fits}: add "
            f"max_tokens = {fits} or less to its entry in semel.toml, or use --device cpu or cuda"
        )

    def _check_session(self, graph: Exported) -> None:
        """Raises BackendError unless this device gives torch's numbers for long and for padded texts."""
        ids, mask = graph.check_ids, graph.check_mask
        result = self._run(ids, mask, np.zeros_like(ids))
        off = np.abs(result - graph.check_answer)
        if result.ndim == 3:
            off = off * mask[:, :, None]  # the states of padding are never used
        worst = float(off.max())
        if not worst <= _TOLERANCE:
            raise BackendError(
                f"{self._device} failed its self-test with model {self._source.name!r}: its numbers are off by "
                f"{worst:.2g} where {_TOLERANCE:g} is allowed; update its driver, or use another device"
            )

    @override
    def tokenize(self, texts: Sequence[Input], *, prompt: str = "", variant: Variant = AS_DEFINED) -> list[Tokens]:
        return self._tokenizer.tokenize(texts, prompt=prompt, variant=variant)

    @override
    def spell(self, text: str, *, special: bool = True) -> list[Spelled]:
        return self._tokenizer.spell(text, special=special)

    @override
    def forward(self, batch: Sequence[Tokens]) -> Vectors:
        longest = min(bucket(max(len(tokens.ids) for tokens in batch)), self._source.described.spec.max_tokens)
        step = self._max_texts(longest)
        parts = [self._part(batch[start : start + step], longest) for start in range(0, len(batch), step)]
        return np.concatenate(parts, dtype=np.float32)

    def _max_texts(self, length: int) -> int:
        """The number of texts of a length that keeps every tensor below the device's limit."""
        assert self._graph is not None  # load made it
        return (LIMIT_BYTES - 1) // _largest_bytes(self._graph, length)

    def _part(self, batch: Sequence[Tokens], length: int) -> Vectors:
        """Vectors of as many texts as run at a time, padded to `length`."""
        ids, mask = padded(batch, pad_id=self._tokenizer.pad_id, length=length)
        segments = padded_segments(batch, length=length, rows=len(batch))
        return self._finish(self._run(ids, mask, segments), batch)

    def _finish(self, states: npt.NDArray[np.float32], batch: Sequence[Tokens]) -> Vectors:
        """Turn the graph's output into vectors, float32 (len(batch), dim)."""
        return self._head(states, [len(tokens.ids) for tokens in batch])

    def _run(
        self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64], segments: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Run the graph; ids, mask and segments are int64 (texts, tokens). Raises DeviceMemoryError."""
        assert self._graph is not None  # load made it
        inputs: dict[str, npt.NDArray[Any]] = {"embeds": self._graph.words[ids], "mask": mask.astype(np.float32)}
        if self._graph.segments:
            inputs["segments"] = segments
        try:
            with turns.computing:
                result: npt.NDArray[np.float32] = self._session.run(None, inputs)[0]
            return result
        except Exception as error:  # ONNX Runtime's error classes are private, and differ between releases
            if "memory" in str(error).lower():
                raise DeviceMemoryError(f"{self._device} has no memory for {mask.size} tokens: {error}") from error
            raise

    @override
    def get_model_info(self) -> ModelInfo:
        assert self._graph is not None  # load made it
        described = self._source.described
        return ModelInfo(
            name=self._source.name,
            backend=f"onnxruntime-webgpu-{self._version}",
            device=self._device,
            dtype="float32",
            why="float32: float16 is off by 2.5e-3 on Vulkan",
            dim=described.dim,
            max_tokens=described.spec.max_tokens,
            max_batch_tokens=_MAX_BATCH_TOKENS,
            weight_bytes=len(self._graph.graph),
            normalizes=described.spec.normalize,
        )

    @override
    def close(self) -> None:
        with turns.computing:
            self._session = self._graph = None


def _largest_bytes(graph: Exported, length: int) -> int:
    """Size of one text's largest tensor: the scores of attention, or the inner states of the feed-forward."""
    return 4 * max(graph.heads * length * length, graph.inner * length)


class VulkanReranker(VulkanBackend):
    """A BERT-class cross-encoder on Vulkan; its vectors are float32 (n, 1).

    Args:
        source, device, converted: as for `VulkanBackend`.
    """

    @override
    def _prepare(self) -> None:
        source = self._source
        check_one_score(source)
        self._tokenizer = TextTokenizer(
            source.name, load_tokenizer(source), max_tokens=source.described.spec.max_tokens
        )

    @override
    def samples(self) -> Sequence[Input]:
        return SAMPLE_PAIRS

    @override
    def tokenize(self, texts: Sequence[Input], *, prompt: str = "", variant: Variant = AS_DEFINED) -> list[Tokens]:
        return self._tokenizer.tokenize_pairs(texts, prompt=prompt, variant=variant)

    @override
    def _finish(self, states: npt.NDArray[np.float32], batch: Sequence[Tokens]) -> Vectors:
        return states
