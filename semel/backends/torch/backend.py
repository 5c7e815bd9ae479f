"""torch on cpu, cuda and mps: sentence-transformers loads and defines the model, semel batches around it.

What differs between the devices stands in `_DEVICES`, `_prepare_thread` and `_choose_dtype`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from semel.backends.base import Backend, ModelInfo, Spelled, Tokens
from semel.backends.batching import bucket
from semel.backends.devices.find import usable_cores
from semel.backends.models.source import ModelSource
from semel.backends.shared.pooling import prompt_left_out
from semel.backends.shared.tokenizing import TextTokenizer, padded
from semel.backends.torch.dtype import choose_dtype
from semel.errors import DeviceMemoryError, ModelLoadError
from semel.values.model import Precision
from semel.values.text import Input
from semel.values.vectors import Vectors

if TYPE_CHECKING:  # it imports torch, which is loaded with the model
    from semel.backends.torch.cpu import PackedEncoder


_FEW_TOKENS = 64
"""Up to here one CPU thread is faster than two, which wait for each other after each layer (5 ms against 9 for one
sentence, measured), and it leaves the other cores to the server."""


@dataclass(frozen=True)
class _DeviceTraits:
    """What differs between the kinds of device, beside their dtype.

    Attributes:
        max_batch_tokens: padded tokens in a batch. CPU: 1,024 to 2,048 keep the outputs of a layer in the caches (8,192
            costs a fifth of the speed, measured). CUDA and MPS: enough to fill the chip with MiniLM-sized models; an
            out-of-memory error halves it.
        bucketed: batches come in few shapes, since memory grows with each new one (pytorch #132596).
        pinned: copies to the device start from page-locked memory and nobody waits for them.
    """

    max_batch_tokens: int
    bucketed: bool = False
    pinned: bool = False


_DEVICES = {
    "cpu": _DeviceTraits(1536),
    "cuda": _DeviceTraits(65536, pinned=True),
    "mps": _DeviceTraits(8192, bucketed=True),
}

_MPS_SHARE = 0.7
"""Of the memory that macOS recommends: above it MPS gives back what it keeps of shapes that it met."""


class TorchBackend(Backend):
    """A sentence-transformers model on one torch device.

    Args:
        source: the model.
        device: `cpu`, `cuda:0`, `mps`.
        threads: CPU threads for one batch; None takes all cores.
    """

    def __init__(self, source: ModelSource, *, device: str, threads: int | None = None) -> None:
        self._source = source
        self._device = device
        self._threads = threads
        self._kind = device.partition(":")[0]
        self._traits = _DEVICES[self._kind]
        self._model: Any = None
        self._packed: PackedEncoder | None = None

    def load(self) -> None:
        self._torch = _import_torch()
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # half a second of "Loading weights", in the middle of the log
        why = self._prepare_thread()
        dtype, why_dtype = self._choose_dtype()
        self._why = f"{why_dtype}; {why}" if why else why_dtype
        self._dtype = str(dtype).removeprefix("torch.")
        self._build(dtype)

    def _build(self, dtype: Any) -> None:
        from sentence_transformers import SentenceTransformer

        described = self._source.described
        model = self._open(SentenceTransformer, dtype)
        precision = self._source.entry.precision
        if precision in (Precision.INT8, Precision.INT4):
            from semel.backends.torch.quantise import quantise

            self._why += f"; {quantise(self._source.name, model[0], precision, self._device)}"
        self._transformer, *after = list(model.children())
        # The entry decides whether to normalise, and its decision is in the fingerprint; see `forward`.
        self._after = [self._chosen(module) for module in after if type(module).__name__ != "Normalize"]
        for module in self._after:
            module.float().to(self._device)  # pooling and projection in float32: bfloat16 sums over tokens lose digits
        if any(getattr(module, "include_prompt", True) is False for module in self._after):
            raise ModelLoadError(prompt_left_out(self._source.name))
        self._model = model.eval()
        self._weight_bytes = weight_bytes(model)
        self._tokenizer = TextTokenizer(self._source.name, self._model.tokenizer, max_tokens=described.spec.max_tokens)
        self._check_dim(described.dim)
        if self._kind == "cpu" and precision == Precision.FULL and dtype is self._torch.bfloat16:
            self._why += f"; {self._rebuild()}"

    def _chosen(self, module: Any) -> Any:
        """The entry's pooling in the place of the files'."""
        if type(module).__name__ != "Pooling" or not self._source.entry.pooling:
            return module
        return type(module)(module.embedding_dimension, pooling_mode=self._source.entry.pooling)

    def _open(self, kind: Any, dtype: Any) -> Any:
        """A model of sentence-transformers, from the files. Raises ModelLoadError."""
        try:
            quantised = self._source.entry.precision in (Precision.INT8, Precision.INT4)
            return kind(
                str(self._source.path),
                device="cpu" if quantised else self._device,  # a GPU need not hold the full weights
                trust_remote_code=self._source.entry.trust_remote_code,
                local_files_only=True,
                model_kwargs={"dtype": dtype},
            )
        except Exception as error:  # anything can be wrong in a model folder; say which one
            raise ModelLoadError(
                f"model {self._source.name!r} in {self._source.path} cannot be loaded on {self._device}: {error}"
            ) from error

    def _rebuild(self) -> str:
        """Take the encoder for CPUs when it gives the same vectors; says which one runs."""
        from semel.backends.torch.cpu import PackedEncoder, rebuild

        texts = ["short", "again", "a text of some length, not that of its neighbours", "the cat sat on the mat. " * 40]
        before = self.embed_texts(texts)

        def compare(encoder: PackedEncoder) -> float:
            self._packed = encoder
            after = self.embed_texts(texts)
            return float(
                ((before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)).min()
            )

        self._packed, why = rebuild(self._transformer.auto_model, compare)
        if self._packed is not None:
            del self._transformer.auto_model.encoder  # its weights are in memory twice otherwise
        return why

    def _prepare_thread(self) -> str:
        """Per-thread state of the CPU kernels: this runs on the device thread."""
        if self._kind == "cuda":
            # TF32 keeps three digits: enough beside bfloat16, and not what an entry that asks for float32 means.
            self._tf32 = self._source.entry.precision != Precision.FLOAT32
            return f"TF32 {'on' if self._tf32 else 'off'}"
        if self._kind != "cpu":
            return ""
        from semel.backends.torch.cpu import keep_memory

        threads = self._threads = self._threads or usable_cores()
        self._torch.set_num_threads(threads)
        # Numbers near zero take the slow path of the FPU, 10 to 100 times slower.
        self._torch.set_flush_denormal(True)
        keep_memory()
        return f"{threads} threads, denormals flushed"

    def _choose_dtype(self) -> tuple[Any, str]:
        wants_full = self._source.entry.precision == Precision.FLOAT32
        return choose_dtype(self._torch, self._kind, wants_full=wants_full)

    def _check_dim(self, expected: int) -> None:
        actual = self.embed_texts(["dimension"]).shape[1]
        if actual != expected:
            raise ModelLoadError(
                f"model {self._source.name!r}: its files speak of {expected} dimensions, the model returns {actual}"
            )

    def tokenize(self, texts: Sequence[Input], *, prompt: str = "") -> list[Tokens]:
        return self._tokenizer.tokenize(texts, prompt=prompt)

    def spell(self, text: str, *, special: bool = True) -> list[Spelled]:
        return self._tokenizer.spell(text, special=special)

    def forward(self, batch: Sequence[Tokens]) -> Vectors:
        torch = self._torch
        if self._kind == "cpu":
            few = sum(len(tokens.ids) for tokens in batch) <= _FEW_TOKENS
            torch.set_num_threads(1 if few else self._threads)
        if self._kind == "cuda":  # a setting of the process, and models with another share it
            torch.set_float32_matmul_precision("high" if self._tf32 else "highest")
        try:
            with torch.inference_mode():
                vectors: Vectors = self._compute(batch).float().cpu().numpy()
                return vectors
        except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU allocator raises the plain class
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                tokens = sum(len(t.ids) for t in batch)
                raise DeviceMemoryError(f"{self._device} has no memory for {tokens} tokens: {error}") from error
            raise

    def _compute(self, batch: Sequence[Tokens]) -> Any:
        """Tensor (len(batch), dim) on the device."""
        pooled = self._pooled(batch) if self._packed is None else self._pooled_by_length(batch, self._packed)
        if self._source.described.spec.normalize:
            pooled = self._torch.nn.functional.normalize(pooled, dim=1)
        return pooled

    def _pooled(self, batch: Sequence[Tokens]) -> Any:
        ids, mask = self._pad(batch)
        pooled = self._pool(self._transformer({"input_ids": ids, "attention_mask": mask}))
        if self._kind == "mps":
            self._recycle()
        return pooled[: len(batch)]

    def _recycle(self) -> None:
        mps = self._torch.mps
        if mps.driver_allocated_memory() > _MPS_SHARE * mps.recommended_max_memory():
            mps.empty_cache()

    def _pooled_by_length(self, batch: Sequence[Tokens], encoder: "PackedEncoder") -> Any:
        from semel.backends.torch.cpu import runs_of, split

        torch = self._torch
        order = np.argsort([len(tokens.ids) for tokens in batch], kind="stable")
        batch = [batch[at] for at in order]
        runs = runs_of(batch)
        ids = torch.from_numpy(np.concatenate([np.asarray(tokens.ids, np.int64) for tokens in batch]))
        pooled = []
        for texts, of_run in zip(split(encoder(ids, runs), runs), split(ids, runs), strict=True):
            mask = torch.ones_like(of_run)
            pooled.append(self._pool({"input_ids": of_run, "attention_mask": mask, "token_embeddings": texts}))
        return torch.cat(pooled)[torch.from_numpy(np.argsort(order))]

    def _pool(self, features: dict[str, Any]) -> Any:
        """float32 (texts, dim) from the hidden states."""
        features["token_embeddings"] = features["token_embeddings"].float()
        for module in self._after:
            features = module(features)
        return features["sentence_embedding"]

    def _pad(self, batch: Sequence[Tokens]) -> tuple[Any, Any]:
        """int64 ids and mask on the device, padded on the right."""
        rows, length = len(batch), max(len(tokens.ids) for tokens in batch)
        if self._traits.bucketed:
            rows, length = bucket(rows), min(bucket(length), self._source.described.spec.max_tokens)
        there = []
        for values in padded(batch, pad_id=self._tokenizer.pad_id, length=length, rows=rows):
            tensor = self._torch.from_numpy(values)
            tensor = tensor.pin_memory() if self._traits.pinned else tensor
            there.append(tensor.to(self._device, non_blocking=self._traits.pinned))
        return there[0], there[1]

    def get_model_info(self) -> ModelInfo:
        described = self._source.described
        return ModelInfo(
            name=self._source.name,
            backend=f"torch-{self._torch.__version__}",
            device=self._device,
            dtype=self._dtype,
            why=self._why,
            dim=described.dim,
            max_tokens=described.spec.max_tokens,
            max_batch_tokens=self._traits.max_batch_tokens,
            weight_bytes=self._weight_bytes,
        )

    def close(self) -> None:
        self._model = self._transformer = self._packed = None
        self._after = []
        if self._kind != "cpu":
            getattr(self._torch, self._kind).empty_cache()


def weight_bytes(model: Any) -> int:
    """Of memory, for a torch module."""
    return sum(each.numel() * each.element_size() for each in (*model.parameters(), *model.buffers()))


def _import_torch() -> Any:
    try:
        import sentence_transformers  # noqa: F401
        import torch
    except ImportError as error:
        raise ModelLoadError(
            f"the torch backend needs {error.name}: pip install 'semel[cpu]' (or semel[cuda] on an NVIDIA machine)"
        ) from None
    return torch
