"""Embedding models on torch, on cpu, cuda and mps: sentence-transformers loads and defines them, semel runs batches.

The differences between the devices are in `DEVICES`, `_prepare_thread`, `_set_state` and `_choose_dtype`.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from semel.backends.base import Backend, ModelInfo, Spelled, Tokens
from semel.backends.batching import bucket
from semel.backends.devices.cores import usable_cores, why_fewer
from semel.backends.models.source import ModelSource
from semel.backends.shared import turns
from semel.backends.shared.pooling import prompt_left_out
from semel.backends.shared.tokenizing import TextTokenizer, padded
from semel.backends.torch.dtype import choose_dtype
from semel.backends.torch.library import import_torch, weight_bytes
from semel.backends.torch.traits import DEVICES
from semel.errors import DeviceMemoryError, ModelLoadError
from semel.values.model import Precision
from semel.values.text import Input
from semel.values.variant import AS_DEFINED, Variant
from semel.values.vectors import AnyVectors, Vectors

if TYPE_CHECKING:  # the module imports torch, which is loaded with the model
    from semel.backends.torch.packed import PackedEncoder

_FEW_TOKENS = 128
"""Up to this many tokens one CPU thread is as fast as two, which wait for each other after each operation (8 ms and 10
for four sentences in bfloat16, 21 and 19 in float32), and it leaves the other cores to the server."""

_MPS_SHARE = 0.7
"""Share of the memory that macOS recommends; above it MPS frees the buffers that it keeps for earlier shapes."""


class TorchBackend(Backend):
    """A sentence-transformers model on one torch device.

    Args:
        source: the model.
        device: as torch names it: `cpu`, `cuda:0`, `mps`.
        threads: CPU threads for one batch; None takes all cores.
    """

    def __init__(self, source: ModelSource, *, device: str, threads: int | None = None) -> None:
        self.name = source.name
        self._source = source
        self._device = device
        self._threads = threads
        self._kind = device.partition(":")[0]
        self._traits = DEVICES[self._kind]
        self.loads_in_any_thread = self._traits.loads_in_any_thread
        self.tokenize_at_once = self._traits.tokenize_at_once
        self._model: Any = None
        self._tokenizer: Any = None
        self._packed: PackedEncoder | None = None

    @override
    def load(self) -> None:
        self._torch = import_torch(library=self._source.plain_pooling is None)
        from semel.backends.torch.building import building

        with building():
            with turns.computing:  # it times a product, which a batch would slow down
                why = self._prepare_thread()
                dtype, why_dtype = self._choose_dtype()
            self._why = f"{why_dtype}; {why}" if why else why_dtype
            self._dtype = str(dtype).removeprefix("torch.")
            self._build(dtype)
        self._tokenizer.start_processes(self._traits.tokenizer_processes(usable_cores()))

    def _build(self, dtype: Any) -> None:
        """Load the model in a dtype. Raises ModelLoadError."""
        model, described = self._open(self._library_class(), dtype), self._source.described
        precision = self._source.entry.precision
        if precision in (Precision.INT8, Precision.INT4):
            from semel.backends.torch.quantise import quantise

            self._why += f"; {quantise(self._source.name, model[0], precision, self._device)}"
        self._transformer, *after = list(model.children())
        # Without the module that normalises: see `Backend.forward`.
        self._after = [self._with_entry_pooling(module) for module in after if type(module).__name__ != "Normalize"]
        for module in self._after:
            module.float().to(self._device)  # pooling and projection in float32: bfloat16 sums over tokens lose digits
        if any(getattr(module, "include_prompt", True) is False for module in self._after):
            raise ModelLoadError(prompt_left_out(self._source.name))
        self._model = model.eval()
        self._weight_bytes = weight_bytes(model)
        self._tokenizer = TextTokenizer(self._source.name, self._model.tokenizer, max_tokens=described.spec.max_tokens)
        self._check_dim(described.dim)
        if self._kind in ("cpu", "cuda") and precision not in (Precision.INT8, Precision.INT4):
            self._why += f"; {self._rebuild()}"

    def _library_class(self) -> Any:
        if self._source.plain_pooling is not None:
            from semel.backends.torch.plain import PlainModel

            return partial(PlainModel, self._source)
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer

    def _with_entry_pooling(self, module: Any) -> Any:
        """The module; a Pooling module with the entry's mode, if the entry has one."""
        if type(module).__name__ != "Pooling" or not self._source.entry.pooling:
            return module
        return type(module)(module.embedding_dimension, pooling_mode=self._source.entry.pooling)

    def _open(self, kind: Any, dtype: Any) -> Any:
        """Load a model of sentence-transformers from its files. Raises ModelLoadError."""
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
        """Use the encoder without padding if it gives the same vectors; returns which one runs."""
        from semel.backends.torch import packed

        texts = ["short", "again", "a text of some length, not that of its neighbours", "the cat sat on the mat. " * 40]
        batches = [texts, texts * 4] if self._kind == "cuda" else [texts]  # a GPU runs few tokens in another way

        def vectors() -> Vectors:
            return np.concatenate([self.forward(self.tokenize(batch)) for batch in batches])

        before = vectors()

        def compare(encoder: "PackedEncoder") -> float:
            self._packed = encoder
            after = vectors()
            lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
            return float(((before * after).sum(1) / lengths).min())

        self._packed, why = packed.rebuild(self._transformer.auto_model, partial(packed.on_device, self._kind), compare)
        if self._packed is not None:
            del self._transformer.auto_model.encoder  # or its weights would be in memory twice
        return why

    def _prepare_thread(self) -> str:
        """Set what loading needs in its thread, and what the process keeps; returns what batches run with."""
        if self._kind == "cuda":
            # TF32 keeps three digits: enough next to bfloat16, but not for an entry that asks for float32.
            self._tf32 = self._source.entry.precision != Precision.FLOAT32
            return f"TF32 {'on' if self._tf32 else 'off'}"
        if self._kind != "cpu":
            return ""
        from semel.backends.torch.cpu import keep_memory

        threads = self._threads = self._threads or usable_cores()
        self._torch.set_num_threads(threads)
        keep_memory()
        fewer = f" ({reason})" if (reason := why_fewer()) and threads == usable_cores() else ""
        return f"{threads} threads{fewer}, denormals flushed"

    def _choose_dtype(self) -> tuple[Any, str]:
        wants_full = self._source.entry.precision == Precision.FLOAT32
        return choose_dtype(self._torch, self._kind, wants_full=wants_full)

    def _check_dim(self, expected: int) -> None:
        """Raises ModelLoadError unless the vectors have the length that the files define."""
        actual = self.forward(self.tokenize(["dimension"])).shape[1]
        if actual != expected:
            raise ModelLoadError(
                f"model {self._source.name!r}: its files define {expected} dimensions, but it returns {actual}"
            )

    @override
    def tokenize(self, texts: Sequence[Input], *, prompt: str = "", variant: Variant = AS_DEFINED) -> list[Tokens]:
        return self._tokenizer.tokenize(texts, prompt=prompt, variant=variant)

    @override
    def spell(self, text: str, *, special: bool = True) -> list[Spelled]:
        return self._tokenizer.spell(text, special=special)

    @override
    def forward(self, batch: Sequence[Tokens]) -> AnyVectors:
        torch = self._torch
        try:
            with turns.computing, torch.inference_mode():
                self._set_state(few=sum(len(tokens.ids) for tokens in batch) <= _FEW_TOKENS)
                with turns.launching() if self._traits.outruns_python else nullcontext():
                    vectors = self._compute(batch).float()
                return self._to_host(vectors)
        except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU allocator raises the plain class
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                tokens = sum(len(t.ids) for t in batch)
                raise DeviceMemoryError(f"{self._device} has no memory for {tokens} tokens: {error}") from error
            raise

    def _to_host(self, vectors: Any) -> AnyVectors:
        """A tensor's numbers; waits for the device."""
        if not vectors.is_cuda:
            return np.asarray(vectors.cpu())
        copy = self._torch.empty_like(vectors, device="cpu", pin_memory=True)
        copy.copy_(vectors, non_blocking=True)
        self._torch.cuda.current_stream(self._device).synchronize()
        return np.asarray(copy)

    def _set_state(self, *, few: bool) -> None:
        """Set what the thread or the process keeps: the model may have been loaded in another thread, before others."""
        if self._kind == "cpu":
            self._torch.set_num_threads(1 if few else self._threads)
            # Numbers near zero (denormals) take a path of the FPU that is 10 to 100 times slower.
            self._torch.set_flush_denormal(True)
        if self._kind == "cuda":
            self._torch.set_float32_matmul_precision("high" if self._tf32 else "highest")

    def _compute(self, batch: Sequence[Tokens]) -> Any:
        """The vectors of a batch, a tensor (len(batch), dim) on the device."""
        return self._pooled(batch) if self._packed is None else self._pooled_unpadded(batch, self._packed)

    def _pooled(self, batch: Sequence[Tokens]) -> Any:
        ids, mask = self._pad(batch)
        pooled = self._pool(self._transformer({"input_ids": ids, "attention_mask": mask}))
        if self._kind == "mps":
            self._free_buffers()
        return pooled[: len(batch)]

    def _free_buffers(self) -> None:
        mps = self._torch.mps
        if mps.driver_allocated_memory() > _MPS_SHARE * mps.recommended_max_memory():
            mps.empty_cache()

    def _pooled_unpadded(self, batch: Sequence[Tokens], encoder: "PackedEncoder") -> Any:
        """Pooled vectors of a batch, from the encoder that computes no padding."""
        packed = encoder.pack(batch, self._move)
        pooled = [
            self._pool({"input_ids": ids, "attention_mask": mask, "token_embeddings": hidden})
            for hidden, ids, mask in encoder.kernels.texts(encoder(packed), packed)
        ]
        return self._torch.cat(pooled)

    def _pool(self, features: dict[str, Any]) -> Any:
        """Pool and project hidden states, to float32 (texts, dim)."""
        features["token_embeddings"] = features["token_embeddings"].float()
        for module in self._after:
            features = module(features)
        return features["sentence_embedding"]

    def _pad(self, batch: Sequence[Tokens]) -> tuple[Any, Any]:
        """int64 ids and mask on the device, padded on the right."""
        rows, length = len(batch), max(len(tokens.ids) for tokens in batch)
        if self._traits.bucketed:
            rows, length = bucket(rows), min(bucket(length), self._source.described.spec.max_tokens)
        arrays = padded(batch, pad_id=self._tokenizer.pad_id, length=length, rows=rows)
        ids, mask = (self._move(self._torch.from_numpy(array)) for array in arrays)
        return ids, mask

    def _move(self, tensor: Any) -> Any:
        """The tensor on the device."""
        if self._traits.pinned:
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)

    @override
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
            normalizes=described.spec.normalize,
        )

    @override
    def close(self) -> None:
        if self._tokenizer is not None:
            self._tokenizer.close()
        self._model = self._transformer = self._packed = None
        self._after = []
        if self._kind != "cpu":
            getattr(self._torch, self._kind).empty_cache()
