"""Everything in a model's files that changes a vector: the content of its fingerprint. Loads no framework."""

from dataclasses import dataclass

from semel.backends.fake import FakeOptions
from semel.backends.fake import dim_of as fake_dim
from semel.backends.models.files import ModelFiles
from semel.backends.models.head import check_head, row_dim, rule_of
from semel.backends.models.layout import (
    LIBRARY_FILES,
    RERANK_TOKENIZER_FILES,
    TOKENIZER_FILES,
    canonical,
    essential,
    files_like,
    max_tokens_of,
    read_json,
    static_max_tokens,
    stored_precision,
    weight_files,
)
from semel.errors import ModelLoadError
from semel.values.model import FingerprintSpec, Kind, ModelEntry


@dataclass(frozen=True)
class Described:
    """What the files of a model define.

    Attributes:
        spec: the fingerprint's content for the default prompt.
        prompts: prompt name → text; "" is the default prompt.
        dim: numbers in a row, as of `Space`.
    """

    spec: FingerprintSpec
    prompts: dict[str, str]
    dim: int


def describe(model: ModelFiles) -> Described:
    """Read everything that changes a vector from a model's files.

    Raises:
        ModelLoadError: the files are missing, or they are not those of a model of this kind.
        BadInputError: a fake model with an option that does not exist.
    """
    if model.is_fake:
        return _describe_fake(model.entry)
    entry, config = model.entry, model.config
    check_head(model)
    weights = weight_files(model.path)
    if not weights:
        raise ModelLoadError(f"model {model.name!r}: {model.path} has no weights (*.safetensors, *.bin)")
    prompts = _prompts(model)
    tokenizer = files_like(model.path, RERANK_TOKENIZER_FILES if entry.kind == "cross-encoder" else TOKENIZER_FILES)
    spec = FingerprintSpec(
        kind=entry.kind,
        weights=model.digest(weights),
        tokenizer=model.digest([file for file in tokenizer if file.parent == model.base]),
        architecture=_architecture(model),
        pooling=rule_of(model),
        normalize=_normalizes(model),
        prompt=prompts[""],
        max_tokens=entry.max_tokens or _limit(model),
        truncate_side="right",
        precision=stored_precision(config) or entry.precision,
    )
    return Described(spec, prompts, row_dim(model))


def _limit(model: ModelFiles) -> int:
    return static_max_tokens(model.base) if model.is_static else max_tokens_of(model.base, model.config)


def _architecture(model: ModelFiles) -> str:
    """The configurations that the libraries read, and a digest of the code that the model's author shipped."""
    configs = [read_json(model.base / name) for name in LIBRARY_FILES]
    code = model.digest(list(model.path.rglob("*.py"))) if model.entry.trust_remote_code else ""
    return canonical([essential(model.config), *(essential(config) for config in configs)]) + code


def _describe_fake(entry: ModelEntry) -> Described:
    """Describe a fake model by its options. Raises BadInputError."""
    options = FakeOptions.parse(entry.source)
    prompts = {"": "", **entry.prompts}
    spec = FingerprintSpec(
        kind=entry.kind,
        weights=f"fake-{options.weights}-{options.dim}",
        tokenizer="fake",
        architecture="fake",
        pooling=_fake_rule(entry.kind, options),
        normalize=entry.kind in ("embed", "cross-encoder"),
        prompt=prompts[""],
        max_tokens=options.max_tokens,
        truncate_side="right",
        precision=entry.precision,
    )
    return Described(spec, prompts, fake_dim(entry.kind, options.dim))


def _fake_rule(kind: Kind, options: FakeOptions) -> str:
    labels = {"labels": [f"LABEL_{i}" for i in range(options.dim)]} if kind == "classifier" else {}
    return (
        canonical({"activation": options.activation, **labels}) if kind in ("cross-encoder", "classifier") else "fake"
    )


def _prompts(model: ModelFiles) -> dict[str, str]:
    """Prompt name → text; the entry's prompts go before those of the files."""
    library = model.library_config
    named = {**(library.get("prompts") or {}), **model.entry.prompts}
    default = library.get("default_prompt_name")
    return {"": named.get(default, "") if default else "", **named}


def _normalizes(model: ModelFiles) -> bool:
    if model.entry.kind in ("classifier", "sparse"):
        return False
    if model.entry.normalize is not None:
        return model.entry.normalize
    return any(kind.endswith("Normalize") for kind, _, _ in model.modules)
