"""Model folders without real weights, for tests of what the files define. Loads no framework."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semel.backends.models.digests import Digests
from semel.backends.models.source import ModelSource, find_model
from semel.values.model import ModelEntry

CONFIG: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 8,
    "max_position_embeddings": 64,
    "vocab_size": 10,
}


def write_files(folder: Path, files: Mapping[str, Any]) -> Path:
    """Write files by relative name: bytes and strings as they are, other values as JSON."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def write_model(folder: Path, *, files: Mapping[str, Any] | None = None, **config: Any) -> Path:
    """Write the files of a plain transformer, with changes to its configuration and further files."""
    plain = {"config.json": {**CONFIG, **config}, "model.safetensors": b"weights", "tokenizer.json": {"words": 1}}
    return write_files(folder, {**plain, **(files or {})})


def write_sentence_model(folder: Path, *modules: tuple[str, Any], files: Mapping[str, Any] | None = None) -> Path:
    """Write a model of sentence-transformers whose modules after the transformer are (type, configuration) each."""
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    parts: dict[str, Any] = {}
    for i, (kind, settings) in enumerate(modules, start=1):
        path = f"{i}_{kind}"
        listed.append({"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"})
        parts[f"{path}/config.json"] = settings
    return write_model(folder, files={"modules.json": listed, **parts, **(files or {})})


def source(folder: Path | str, **entry: Any) -> ModelSource:
    """The model in a folder, or of another source, named m."""
    return find_model("m", {"m": ModelEntry(str(folder), **entry)}, models_dir=None, digests=Digests(None))
