"""How the files of a model folder are laid out, and what they define."""

import json
from pathlib import Path
from typing import Any

from semel.backends.shared.pooling import pooling_modes
from semel.errors import ModelLoadError
from semel.values.model import Precision

_WEIGHTS = ("*.safetensors", "*.bin")

TOKENIZER_FILES = (
    "tokenizer*.json",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "*.model",
    "added_tokens.json",
)
"""Patterns of the files that decide how a text becomes tokens."""

RERANK_TOKENIZER_FILES = (*TOKENIZER_FILES, "*.jinja")
"""The same for a cross-encoder: a causal one reads its pair through a chat template."""

LIBRARY_FILES = ("sentence_bert_config.json", "adapter_config.json")
"""Files that the libraries read in addition to config.json: lower-casing, the output that is taken, adapters."""

_IGNORED_DIRS = {"onnx", "openvino"}

_NOISE = {
    "_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "__version__",
    "use_cache",
    "gradient_checkpointing",
    "max_seq_length",
}
"""Keys that do not change a vector, or that the fingerprint holds elsewhere (precision, max_tokens)."""


_MOST_HEAD_BYTES = 100 << 20
"""safetensors' own limit for the head of a file."""

_NO_LIMIT = 1_000_000
"""Tokens that a static embedding reads if its files name no limit."""


def read_json(path: Path) -> Any:
    """Return the value in a JSON file, or None if there is no such file. Raises ModelLoadError if it is not JSON."""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"{path} is not JSON: {error}") from None


def canonical(value: Any) -> str:
    """JSON with sorted keys and without spaces: equal values give equal strings."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def files_like(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The files under a folder that match one of the patterns, in no particular order; exports to ONNX are left out."""
    found = {file for pattern in patterns for file in root.rglob(pattern)}
    return [f for f in found if not _IGNORED_DIRS.intersection(f.relative_to(root).parts) and f.is_file()]


def essential(config: dict[str, Any] | None) -> dict[str, Any]:
    """A configuration without the keys that do not change a vector."""
    return {k: v for k, v in (config or {}).items() if k not in _NOISE}


def weight_files(root: Path) -> list[Path]:
    """The files that the libraries load: in each folder the *.safetensors if there are any, else the *.bin."""
    files = files_like(root, _WEIGHTS)
    safe = {file.parent for file in files if file.suffix == ".safetensors"}
    return [file for file in files if file.suffix == ".safetensors" or file.parent not in safe]


def lower_cases(model: str, base: Path) -> bool:
    """Whether sentence_bert_config.json asks for lower-cased texts.

    Raises:
        ModelLoadError: the file has a setting that only sentence-transformers itself follows.
    """
    settings = read_json(base / "sentence_bert_config.json") or {}
    passed_on = ("tokenizer_args", "processor_kwargs", "processing_kwargs", "model_args", "model_kwargs")
    unknown = [key for key in (*passed_on, "config_args", "config_kwargs", "query_expansion") if settings.get(key)]
    if settings.get("module_output_name") not in (None, "token_embeddings", "scores", "causal_logits"):
        unknown.append("module_output_name")
    if unknown:
        raise ModelLoadError(
            f"model {model!r}: its sentence_bert_config.json sets {', '.join(unknown)}, which only the torch backend "
            "follows: use --device cpu, cuda or mps"
        )
    return bool(settings.get("do_lower_case"))


def _module_list(root: Path) -> list[dict[str, Any]] | None:
    """The entries of modules.json in order; None for a plain transformer, which has no such file."""
    listed = read_json(root / "modules.json")
    return None if listed is None else sorted(listed, key=lambda module: int(module["idx"]))


def base_folder(root: Path) -> Path:
    """The folder of the transformer itself, in or under a model's folder. Raises ModelLoadError as `read_json`."""
    listed = _module_list(root)
    return root / listed[0]["path"] if listed else root


def is_static(root: Path) -> bool:
    """Whether a model has no transformer but a table with one row for each token (StaticEmbedding, model2vec).

    Raises ModelLoadError as `read_json`.
    """
    listed = _module_list(root)
    return listed is not None and str(listed[0]["type"]).endswith("StaticEmbedding")


BERT_CLASS = {"bert", "roberta", "xlm-roberta", "camembert"}
"""Encoders whose attention is bidirectional, whose layers are attention, norm, Linear, GELU, Linear, norm, and whose
hidden states need nothing but ids and a mask."""

_PLAIN_POOLING = {"mean", "cls"}


def plain_pooling(root: Path, *, entry_pooling: str | None) -> str | None:
    """How a model pools that is only an encoder, a pooling by `mean` or `cls`, and perhaps a normalisation; else None.

    Such a model needs nothing of sentence-transformers. Whatever this version does not know, the library decides.

    Args:
        entry_pooling: of the configuration, instead of the model's own.

    Raises ModelLoadError as `read_json`.
    """
    modules, base = modules_of(root), base_folder(root)
    config, settings = read_json(base / "config.json") or {}, read_json(base / "sentence_bert_config.json") or {}
    kinds = [kind for kind, _, _ in modules or []]
    if kinds not in (["Pooling"], ["Pooling", "Normalize"]) or config.get("model_type") not in BERT_CLASS:
        return None
    if settings.keys() - {"max_seq_length", "do_lower_case"} or settings.get("do_lower_case"):
        return None
    if config.get("auto_map") or (base / "adapter_config.json").exists():
        return None
    assert modules is not None  # it has a Pooling
    pooling = modules[0][1]
    modes = pooling_modes(pooling)
    mode = entry_pooling or (modes[0] if len(modes) == 1 else "")
    return mode if mode in _PLAIN_POOLING and pooling.get("include_prompt") is not False else None


def static_dim(base: Path) -> int:
    """Length of a row of a static embedding, from the head of its safetensors file; 0 if the file does not show it."""
    for file in weight_files(base):
        tensors = tensors_of(file)
        for name in ("embedding.weight", "embeddings"):
            if name in tensors:
                return int(tensors[name]["shape"][1])
    return 0


def tensors_of(file: Path) -> dict[str, Any]:
    """The head of a safetensors file: tensor → its shape and more; empty for a file of another format.

    Raises ModelLoadError if the file is damaged.
    """
    with file.open("rb") as weights:
        size = int.from_bytes(weights.read(8), "little")
        head = weights.read(min(size, _MOST_HEAD_BYTES)) if file.suffix == ".safetensors" else b"{}"
    try:
        tensors: dict[str, Any] = json.loads(head)
    except ValueError:
        raise ModelLoadError(f"{file} is no safetensors file") from None
    return tensors


def static_max_tokens(base: Path) -> int:
    """The limit of a static embedding: that of its tokenizer's file, if it cuts texts. Raises as `read_json`."""
    cuts = (read_json(base / "tokenizer.json") or {}).get("truncation")
    return int(cuts["max_length"]) if cuts else _NO_LIMIT


def modules_of(root: Path) -> list[list[Any]] | None:
    """The modules after the transformer: [kind, configuration, folder] each; None for a plain transformer.

    Raises ModelLoadError as `read_json`.
    """
    listed = _module_list(root)
    if listed is None:
        return None
    return [
        [m["type"].rsplit(".", 1)[-1], read_json(root / m["path"] / "config.json") or {}, m["path"]] for m in listed[1:]
    ]


def stored_precision(config: dict[str, Any]) -> Precision | None:
    """The precision of weights that are stored quantised in MLX's format; None for other weights."""
    bits = (config.get("quantization") or {}).get("bits")
    return {4: Precision.INT4, 8: Precision.INT8}.get(bits or 0)


def max_tokens_of(root: Path, config: dict[str, Any]) -> int:
    """The model's limit in tokens: sentence-transformers' own file, else the smaller limit of model and tokenizer.

    This is sentence-transformers' rule. Without any limit it is 512.
    """
    own = read_json(root / "sentence_bert_config.json") or {}
    if own.get("max_seq_length"):
        return int(own["max_seq_length"])
    tokenizer = read_json(root / "tokenizer_config.json") or {}
    limits = [config.get("max_position_embeddings"), tokenizer.get("model_max_length")]
    known = [int(limit) for limit in limits if limit]
    return min(known) if known else 512


def dim_of(modules: list[Any], config: dict[str, Any]) -> int:
    """Length of the vectors after the modules; 0 if the files do not define it."""
    dim = int(config.get("hidden_size") or config.get("dim") or config.get("d_model") or 0)
    for kind, settings in modules:
        if kind == "Pooling":
            dim = _pooled_dim(settings, dim)
        elif kind == "Dense":
            dim = int(settings["out_features"])
    return dim


def _pooled_dim(settings: dict[str, Any], dim: int) -> int:
    """Length of a pooled vector: each pooling mode adds a block of `dim` numbers (mean + CLS gives twice the size)."""
    modes = settings.get("pooling_mode", "")
    old_style = sum(bool(v) for k, v in settings.items() if k.startswith("pooling_mode_"))
    return dim * (len(modes) if isinstance(modes, list | tuple) else max(old_style, 1))
