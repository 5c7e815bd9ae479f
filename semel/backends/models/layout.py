"""How the files of a model folder are laid out, and what they say."""

import json
from pathlib import Path
from typing import Any

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

RERANK_TOKENIZER_FILES = (*TOKENIZER_FILES, "*.jinja")
"""A causal reranker reads its pair through a chat template."""

LIBRARY_FILES = ("sentence_bert_config.json", "adapter_config.json")
"""Read by the libraries beside config.json: lower-casing, which output is taken, adapters."""

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


def read_json(path: Path) -> Any:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"{path} is not JSON: {error}") from None


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def files_like(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    found = {file for pattern in patterns for file in root.rglob(pattern)}
    return [f for f in found if not _IGNORED_DIRS.intersection(f.relative_to(root).parts) and f.is_file()]


def essential(config: dict[str, Any] | None) -> dict[str, Any]:
    return {k: v for k, v in (config or {}).items() if k not in _NOISE}


def weight_files(root: Path) -> list[Path]:
    """In each folder the safetensors if there are any, else the .bin: what the libraries load."""
    files = files_like(root, _WEIGHTS)
    safe = {file.parent for file in files if file.suffix == ".safetensors"}
    return [file for file in files if file.suffix == ".safetensors" or file.parent not in safe]


def check_beside(model: str, base: Path) -> bool:
    """Whether texts are lower-cased first, as sentence_bert_config.json says it.

    Raises ModelLoadError for what else stands there and only sentence-transformers itself does.
    """
    beside = read_json(base / "sentence_bert_config.json") or {}
    passed_on = ("tokenizer_args", "processor_kwargs", "processing_kwargs", "model_args", "model_kwargs")
    strange = [key for key in (*passed_on, "config_args", "config_kwargs", "query_expansion") if beside.get(key)]
    if beside.get("module_output_name") not in (None, "token_embeddings", "scores", "causal_logits"):
        strange.append("module_output_name")
    if strange:
        raise ModelLoadError(
            f"model {model!r}: its sentence_bert_config.json sets {', '.join(strange)}, which only the torch backend "
            "follows: --device cpu, cuda or mps"
        )
    return bool(beside.get("do_lower_case"))


def _listed(root: Path) -> list[dict[str, Any]] | None:
    listed = read_json(root / "modules.json")
    return None if listed is None else sorted(listed, key=lambda module: int(module["idx"]))


def base_folder(root: Path) -> Path:
    listed = _listed(root)
    return root / listed[0]["path"] if listed else root


def modules_of(root: Path) -> list[list[Any]] | None:
    """What follows the transformer: [kind, configuration, folder] each; None for a plain transformer."""
    listed = _listed(root)
    if listed is None:
        return None
    return [
        [m["type"].rsplit(".", 1)[-1], read_json(root / m["path"] / "config.json") or {}, m["path"]] for m in listed[1:]
    ]


def stored_precision(config: dict[str, Any]) -> Precision | None:
    """Of weights that are stored quantised, as MLX does it."""
    bits = (config.get("quantization") or {}).get("bits")
    return {4: Precision.INT4, 8: Precision.INT8}.get(bits or 0)


def max_tokens_of(root: Path, config: dict[str, Any]) -> int:
    """As sentence-transformers finds it: its own file, else the smaller of model's and tokenizer's limits."""
    own = read_json(root / "sentence_bert_config.json") or {}
    if own.get("max_seq_length"):
        return int(own["max_seq_length"])
    tokenizer = read_json(root / "tokenizer_config.json") or {}
    limits = [config.get("max_position_embeddings"), tokenizer.get("model_max_length")]
    known = [int(limit) for limit in limits if limit]
    return min(known) if known else 512


def dim_of(modules: list[Any], config: dict[str, Any]) -> int:
    dim = int(config.get("hidden_size") or config.get("dim") or config.get("d_model") or 0)
    for kind, settings in modules:
        if kind == "Pooling":
            dim = _pooled_dim(settings, dim)
        elif kind == "Dense":
            dim = int(settings["out_features"])
    return dim


def _pooled_dim(settings: dict[str, Any], dim: int) -> int:
    """Each pooling mode that is switched on adds its own block (mean + CLS gives twice the size)."""
    modes = settings.get("pooling_mode", "")
    old_style = sum(bool(v) for k, v in settings.items() if k.startswith("pooling_mode_"))
    return dim * (len(modes) if isinstance(modes, list | tuple) else max(old_style, 1))
