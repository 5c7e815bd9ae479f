"""Embedding models on MLX: on Apple's GPU, and for tests on the CPU of a Linux machine (`mlx[cpu]`).

The hidden states are those of the real transformer; a model that cannot be loaded is refused, never replaced.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import override

from semel.backends.base import Backend, ModelInfo, Spelled, Tokens
from semel.backends.batching import bucket
from semel.backends.models.source import ModelSource
from semel.backends.shared.pooling import Head, read_head
from semel.backends.shared.positions import check_positions
from semel.backends.shared.tokenizing import TextTokenizer, load_tokenizer, padded
from semel.errors import BackendError, DeviceMemoryError, ModelLoadError
from semel.values.model import Precision
from semel.values.text import Input
from semel.values.variant import AS_DEFINED, Variant
from semel.values.vectors import Vectors

_MAX_BATCH_TOKENS = {"gpu": 16384, "cpu": 1024}
"""Padded tokens in a batch: enough to fill an M-series GPU with a small model; on a CPU what fits into the caches. The
engine halves it when memory runs out."""

_CACHE_BYTES = 1 << 30
"""MLX keeps freed buffers of every shape; above this size it returns them to the system."""


class MlxBackend(Backend):
    """An embedding model on MLX: a BERT-class encoder, or a decoder among `decoder.MODEL_TYPES`.

    Args:
        source: the model.
    """

    def __init__(self, source: ModelSource) -> None:
        self.name = source.name
        self._source = source
        self._model: Any = None
        self._head: Head | None = None

    @override
    def load(self) -> None:
        self._mx = import_mlx()
        self._mx.set_cache_limit(_CACHE_BYTES)
        self._kind = self._source.config.get("model_type", "")
        check_positions(self._source)
        try:
            self._build()
        except MemoryError as error:
            raise ModelLoadError(f"model {self._source.name!r} does not fit into memory: {error}") from error

    def _build(self) -> None:
        """Load the model, its tokenizer and its pooling. Raises ModelLoadError."""
        source = self._source
        described = source.described
        self._model = self._open(with_head=False)
        self._head = read_head(source.name, source.path, source.modules)
        self._tokenizer = TextTokenizer(source.name, load_tokenizer(source), max_tokens=described.spec.max_tokens)
        width = self.forward(self.tokenize(["dimension"])).shape[1]
        if width != described.dim:
            raise ModelLoadError(
                f"model {source.name!r}: its files define {described.dim} dimensions, but it returns {width}"
            )

    def _open(self, *, with_head: bool) -> Any:
        """Load the module from ids and mask to hidden states, or with its head to logits. Raises ModelLoadError."""
        from semel.backends.mlx import bert as mlx_bert
        from semel.backends.mlx import decoder as mlx_decoder

        source = self._source
        if not list(source.base.glob("*.safetensors")):
            raise ModelLoadError(
                f"model {source.name!r}: the MLX backend reads weights from *.safetensors, and {source.base} has none; "
                "save it with save_pretrained(…, safe_serialization=True), or use --device cpu"
            )
        if self._kind in mlx_bert.MODEL_TYPES:
            model = mlx_bert.load(source.name, source.base, source.config, with_head=with_head)
            self._cast(model, half=self._mx.float16)
            return model
        if self._kind in mlx_decoder.MODEL_TYPES:
            decoder = mlx_decoder.Decoder(
                source.name,
                source.base,
                source.config,
                max_tokens=source.described.spec.max_tokens,
                with_head=with_head,
            )
            self._cast(decoder.module, half=self._mx.bfloat16)
            return decoder
        known = ", ".join((*mlx_bert.MODEL_TYPES, *mlx_decoder.MODEL_TYPES))
        raise ModelLoadError(
            f"model {source.name!r} is a {self._kind}, which the MLX backend does not run (it runs {known}); "
            "the torch backend does: --device cpu, cuda or mps"
        )

    def _cast(self, module: Any, *, half: Any) -> None:
        """Choose the dtype and convert the weights; quantised weights stay, only their scales are converted."""
        from mlx.utils import tree_flatten

        mx = self._mx
        wants_full = self._source.entry.precision == Precision.FLOAT32
        if wants_full or not mx.metal.is_available():
            dtype = mx.float32
            why = "the model's entry asks for it" if wants_full else "MLX on a CPU computes in it"
        else:
            dtype, why = half, "a Metal GPU is fast in it"
        module.set_dtype(dtype)
        mx.eval(module.parameters())
        self._weight_bytes = sum(values.nbytes for _, values in tree_flatten(module.parameters()))
        self._dtype = str(dtype).removeprefix("mlx.core.")
        bits = (self._source.config.get("quantization") or {}).get("bits")
        stored = f"{bits}-bit weights; " if bits else ""
        self._why = f"{stored}{self._dtype}: {why}"

    @override
    def tokenize(self, texts: Sequence[Input], *, prompt: str = "", variant: Variant = AS_DEFINED) -> list[Tokens]:
        return self._tokenizer.tokenize(texts, prompt=prompt, variant=variant)

    @override
    def spell(self, text: str, *, special: bool = True) -> list[Spelled]:
        return self._tokenizer.spell(text, special=special)

    @override
    def forward(self, batch: Sequence[Tokens]) -> Vectors:
        try:
            return self._compute(batch)
        except RuntimeError as error:
            if "memory" in str(error).lower() or "[malloc" in str(error):
                tokens = sum(len(each.ids) for each in batch)
                raise DeviceMemoryError(f"mlx has no memory for {tokens} tokens: {error}") from error
            raise

    def _compute(self, batch: Sequence[Tokens]) -> Vectors:
        """The vectors of a batch, as `forward` returns them."""
        assert self._head is not None  # load made it
        hidden = self._model(*self._inputs(batch))
        states = np.asarray(hidden[: len(batch)].astype(self._mx.float32))
        return self._head(states, [len(tokens.ids) for tokens in batch])

    def _inputs(self, batch: Sequence[Tokens]) -> tuple[Any, Any]:
        """Ids and mask in few different shapes, because MLX keeps buffers of every shape. Raises BackendError."""
        longest = min(bucket(max(len(tokens.ids) for tokens in batch)), self._source.described.spec.max_tokens)
        ids, mask = padded(batch, pad_id=self._tokenizer.pad_id, length=longest, rows=bucket(len(batch)))
        vocabulary = self._source.config["vocab_size"]
        if ids.max() >= vocabulary:  # MLX would read past the end of the table of embeddings
            raise BackendError(f"token {ids.max()} is not in the model's vocabulary of {vocabulary} tokens")
        return self._mx.array(ids), self._mx.array(mask)

    @override
    def get_model_info(self) -> ModelInfo:
        mx = self._mx
        described = self._source.described
        return ModelInfo(
            name=self._source.name,
            backend=f"mlx-{mx.__version__}",
            device="mlx",
            dtype=self._dtype,
            why=self._why,
            dim=described.dim,
            max_tokens=described.spec.max_tokens,
            max_batch_tokens=_MAX_BATCH_TOKENS["gpu" if mx.metal.is_available() else "cpu"],
            weight_bytes=self._weight_bytes,
            normalizes=described.spec.normalize,
        )

    @override
    def close(self) -> None:
        self._model = self._head = None
        self._mx.clear_cache()


def import_mlx() -> Any:
    """Import `mlx.core`. Raises ModelLoadError, with the way to install it."""
    try:
        import mlx.core as mx
    except ImportError as error:
        raise ModelLoadError(f"the MLX backend cannot import mlx ({error}): pip install 'semel[mlx]'") from None
    return mx
