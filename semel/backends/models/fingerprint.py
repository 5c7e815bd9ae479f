"""Everything in a model's files that changes a vector: the content of its fingerprint. Loads no framework."""

from dataclasses import dataclass
from typing import Any

from semel.backends.fake import FakeOptions
from semel.backends.models.files import ModelFiles
from semel.backends.models.layout import (
    LIBRARY_FILES,
    RERANK_TOKENIZER_FILES,
    TOKENIZER_FILES,
    canonical,
    dim_of,
    essential,
    files_like,
    max_tokens_of,
    read_json,
    stored_precision,
    weight_files,
)
from semel.errors import ModelLoadError
from semel.values.model import FingerprintSpec, ModelEntry

_WITH_HEAD = ("ForSequenceClassification", "ForCausalLM")
"""Endings of the architectures that have a scoring head."""


@dataclass(frozen=True)
class Described:
    """What the files of a model define.

    Attributes:
        spec: the fingerprint's content for the default prompt.
        prompts: prompt name → text; "" is the default prompt.
        dim: length of the vectors; 1 for a cross-encoder.
    """

    spec: FingerprintSpec
    prompts: dict[str, str]
    dim: int


def describe(model: ModelFiles) -> Described:
    """Read everything that changes a vector from a model's files.

    Raises:
        ModelLoadError: the files are missing, or they are not those of an embedding model or a cross-encoder.
        BadInputError: a fake model with an option that does not exist.
    """
    if model.is_fake:
        return _describe_fake(model.entry)
    entry, config = model.entry, model.config
    reranks = entry.kind == "cross-encoder"
    modules = [[kind, settings] for kind, settings, _ in model.modules]
    if reranks:
        _check_head(model.name, config)
    weights = weight_files(model.path)
    if not weights:
        raise ModelLoadError(f"model {model.name!r}: {model.path} has no weights (*.safetensors, *.bin)")
    prompts = _prompts(model)
    tokenizer = files_like(model.path, RERANK_TOKENIZER_FILES if reranks else TOKENIZER_FILES)
    spec = FingerprintSpec(
        kind=entry.kind,
        weights=model.digest(weights),
        tokenizer=model.digest([file for file in tokenizer if file.parent == model.base]),
        architecture=_architecture(model, reranks=reranks),
        pooling=canonical(modules),
        normalize=_normalizes(entry, modules),
        prompt=prompts[""],
        max_tokens=entry.max_tokens or max_tokens_of(model.base, config),
        truncate_side="right",
        precision=stored_precision(config) or entry.precision,
    )
    return Described(spec, prompts, 1 if reranks else dim_of(modules, config))


def _architecture(model: ModelFiles, *, reranks: bool) -> str:
    """The configurations that the libraries read, and a digest of the code that the model's author shipped."""
    configs = [read_json(model.base / name) for name in LIBRARY_FILES]
    if reranks and model.library_config.get("activation_fn"):
        configs.append({"activation_fn": model.library_config["activation_fn"]})
    code = model.digest(list(model.path.rglob("*.py"))) if model.entry.trust_remote_code else ""
    return canonical([essential(model.config), *(essential(config) for config in configs)]) + code


def _check_head(name: str, config: dict[str, Any]) -> None:
    """Raises ModelLoadError unless the architecture has a scoring head, which only training can fill."""
    kinds = config.get("architectures") or ["none"]
    if not kinds[0].endswith(_WITH_HEAD):
        raise ModelLoadError(
            f"model {name!r} is not a cross-encoder: its architecture {kinds[0]} has no trained scoring head, and "
            "semel does not initialise one at random. Use a reranker (its architecture ends in "
            "ForSequenceClassification or ForCausalLM), or leave out kind to compare vectors"
        )


def _describe_fake(entry: ModelEntry) -> Described:
    """Describe a fake model by its options. Raises BadInputError."""
    options = FakeOptions.parse(entry.source)
    prompts = {"": "", **entry.prompts}
    spec = FingerprintSpec(
        kind=entry.kind,
        weights=f"fake-{options.weights}-{options.dim}",
        tokenizer="fake",
        architecture="fake",
        pooling="fake",
        normalize=True,
        prompt=prompts[""],
        max_tokens=options.max_tokens,
        truncate_side="right",
        precision=entry.precision,
    )
    return Described(spec, prompts, 1 if entry.kind == "cross-encoder" else options.dim)


def _prompts(model: ModelFiles) -> dict[str, str]:
    """Prompt name → text; the entry's prompts go before those of the files."""
    library = model.library_config
    named = {**(library.get("prompts") or {}), **model.entry.prompts}
    default = library.get("default_prompt_name")
    return {"": named.get(default, "") if default else "", **named}


def _normalizes(entry: ModelEntry, modules: list[Any]) -> bool:
    if entry.normalize is not None:
        return entry.normalize
    return any(kind.endswith("Normalize") for kind, _ in modules)
