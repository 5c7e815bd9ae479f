"""A transformer as an ONNX graph, which torch exports once; imports torch only for the export.

The graph takes the embeddings of the words, not their ids: the host looks them up, because the table of a vocabulary of
250,000 words is larger than the largest buffer of many devices. Attention is not fused, and masks are numbers, not
booleans: fused attention and boolean masks gave wrong vectors on WebGPU from 32 or 64 tokens on, without an error.
"""

import hashlib
import io
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semel.atomic_write import atomic_write
from semel.backends.models.source import ModelSource
from semel.backends.shared import turns
from semel.errors import ModelLoadError
from semel.log import get_log

log = get_log("onnx")

MODEL_TYPES = (
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "mpnet",
    "modernbert",
)
"""Architectures whose graph is compared with torch by a test."""

_FORMAT = 1
"""Increase it when the export changes: new files are then written next to the old ones."""

_OPSET = 17
"""Version of the ONNX operators."""

_MASKED = -3.0e38
"""Added to the attention score of a token that must not be seen; float32 ends at 3.4e38."""

_CHECK_LENGTHS = (96, 70, 5)
"""Tokens of the texts that check a session: more than 64, and with padding; fewer if the model reads fewer."""


@dataclass(frozen=True)
class Exported:
    """The files of an export.

    Attributes:
        graph: ONNX: embeds float32 (n, length, width), mask float32 (n, length) of 0 and 1 [, segments int64] →
            hidden states (n, length, width), or logits (n, labels) of a classifier.
        words: the embedding table, float32 (vocabulary, width), mapped from its file.
        check_ids, check_mask: int64 (3, 96), the texts that check a session.
        check_answer: torch's result for them on the CPU.
        heads, inner: attention heads and inner width of the feed-forward; they bound the largest tensor.
        segments: whether the graph has the input `segments`.
    """

    graph: bytes
    words: npt.NDArray[np.float32]
    check_ids: npt.NDArray[np.int64]
    check_mask: npt.NDArray[np.int64]
    check_answer: npt.NDArray[np.float32]
    heads: int
    inner: int
    segments: bool


def exported(source: ModelSource, folder: Path) -> Exported:
    """Return the export of a model from a folder; creates it there if it does not exist.

    Args:
        source: the model.
        folder: holds a folder for each export.

    Raises:
        ModelLoadError: an architecture that no test compares, files that cannot be loaded, or torch or onnx is
            missing for the first export.
    """
    kind = str(source.config.get("model_type", ""))
    if kind not in MODEL_TYPES:
        raise ModelLoadError(
            f"model {source.name!r} is a {kind}, which the Vulkan backend does not run (it runs "
            f"{', '.join(MODEL_TYPES)}); the torch backend does: --device cpu or cuda"
        )
    spec = source.described.spec
    digest = hashlib.sha256(json.dumps([_FORMAT, spec.kind, spec.weights, spec.architecture]).encode()).hexdigest()
    target = folder / f"{kind}-{digest[:32]}"
    with turns.loading:
        if not (target / "about.json").exists():
            _export(source, target)
    about = json.loads((target / "about.json").read_text())
    check = np.load(target / "check.npz")
    words = np.load(target / "words.npy", mmap_mode="r")
    return Exported((target / "model.onnx").read_bytes(), words, check["ids"], check["mask"], check["answer"], **about)


def _export(source: ModelSource, target: Path) -> None:
    """Export a model into a folder. Raises ModelLoadError."""
    try:
        import onnx  # noqa: F401  # torch's exporter needs it
        import torch
        import transformers
    except ImportError as error:
        raise ModelLoadError(
            f"model {source.name!r} must be exported once, which needs {error.name}: pip install 'semel[vulkan]'"
        ) from None
    log.info("exporting the model to ONNX, once", model=source.name, folder=str(target))
    reranks = source.entry.kind == "cross-encoder"
    model = _load(source, transformers.AutoModelForSequenceClassification if reranks else transformers.AutoModel)
    segments = bool(reranks and getattr(model.config, "type_vocab_size", 1) > 1)
    table = model.get_input_embeddings().weight.detach().numpy()
    graph = _graph(model, segments=segments)
    ids, mask = _check_texts(len(table), max_tokens=source.described.spec.max_tokens)
    with torch.inference_mode():
        result = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        answer = (result.logits if reranks else result.last_hidden_state).numpy()
    about = {
        "heads": model.config.num_attention_heads,
        "inner": int(getattr(model.config, "intermediate_size", None) or model.config.hidden_dim),
        "segments": segments,
    }
    check = {"ids": ids, "mask": mask, "answer": answer}
    _write(target, graph=graph, words=table, check=check, about=about)


def _load(source: ModelSource, loader: Any) -> Any:
    """Load a model of transformers with every weight from the files. Raises ModelLoadError."""
    import torch

    reranks = source.entry.kind == "cross-encoder"
    try:
        model, loading = loader.from_pretrained(
            str(source.base),
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            output_loading_info=True,
        )
        model.eval()
    except Exception as error:  # anything can be wrong in a model folder; say which one
        raise ModelLoadError(f"model {source.name!r} in {source.base} cannot be loaded: {error}") from error
    if missing := sorted(key for key in loading["missing_keys"] if reranks or "pooler" not in key):
        raise ModelLoadError(
            f"model {source.name!r}: its files lack {', '.join(missing[:3])}, and semel does not initialise weights "
            "at random"
        )
    return model


def _write(target: Path, *, graph: bytes, words: Any, check: dict[str, Any], about: dict[str, Any]) -> None:
    """Write the files of an export; two processes may do it at once. `about.json` is last: it marks it as complete."""
    target.mkdir(parents=True, exist_ok=True)
    parts: dict[str, io.BytesIO] = {name: io.BytesIO() for name in ("words.npy", "check.npz")}
    np.save(parts["words.npy"], words)
    np.savez(parts["check.npz"], **check)
    files = {name: part.getvalue() for name, part in parts.items()}
    for name, data in {"model.onnx": graph, **files, "about.json": json.dumps(about).encode()}.items():
        with atomic_write(target / name) as file:
            file.write(data)


def _check_texts(vocabulary: int, *, max_tokens: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids and mask of random texts, padded on the right with the id 1, as RoBERTa needs it."""
    lengths = [min(length, max_tokens) for length in _CHECK_LENGTHS]
    ids = np.ones((len(lengths), max(lengths)), np.int64)
    mask = np.zeros_like(ids)
    random = np.random.default_rng(0)
    for row, length in enumerate(lengths):
        ids[row, :length] = random.integers(min(5, vocabulary - 1), vocabulary, length)
        mask[row, :length] = 1
    return ids, mask


def _graph(model: Any, *, segments: bool) -> bytes:
    """The ONNX graph of a model, traced with inputs of an arbitrary size."""
    import torch

    width = model.get_input_embeddings().weight.shape[1]
    names = ["embeds", "mask", *(["segments"] if segments else [])]
    mask = torch.ones(3, 37)
    mask[1, 20:] = 0
    inputs = [torch.randn(3, 37, width), mask, *([torch.zeros(3, 37, dtype=torch.int64)] if segments else [])]
    graph = _wrapper(model).eval()  # the exporter restores the wrapper's mode on the model: train mode has dropout
    with torch.no_grad():
        out = graph(*inputs)
    axes = {name: {0: "texts", 1: "length"} for name in names}
    axes["out"] = {0: "texts", 1: "length"} if out.ndim == 3 else {0: "texts"}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newer exporter that it recommends is slower and no better here
        torch.onnx.export(
            graph,
            tuple(inputs),
            buffer,
            input_names=names,
            output_names=["out"],
            dynamo=False,
            opset_version=_OPSET,
            dynamic_axes=axes,
        )
    return buffer.getvalue()


def _wrapper(model: Any) -> Any:
    """A torch module from embeddings and a mask of numbers to hidden states or logits."""
    import torch

    window = model.config.sliding_window if model.config.model_type == "modernbert" else None

    class Graph(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, embeds: Any, mask: Any, segments: Any = None) -> Any:
            bias: Any = (1.0 - mask[:, None, None, :]) * _MASKED
            if window is not None:
                positions = torch.arange(mask.shape[1], dtype=torch.float32)
                beyond = ((positions[None, :] - positions[:, None]).abs() - float(window)).clamp(0.0, 1.0)
                sliding = (1.0 - mask[:, None, None, :] + beyond[None, None]).clamp(0.0, 1.0) * _MASKED
                bias = {"full_attention": bias, "sliding_attention": sliding}
            more = {} if segments is None else {"token_type_ids": segments}
            out = self.model(inputs_embeds=embeds, attention_mask=bias, **more)
            return out.logits if hasattr(out, "logits") else out.last_hidden_state

    return Graph()
