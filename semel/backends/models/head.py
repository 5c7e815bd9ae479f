"""What makes of a model's hidden states what the cache keeps: its part of the fingerprint. Loads no framework."""

from typing import Any

from semel.backends.models.files import ModelFiles
from semel.backends.models.layout import canonical, dim_of, static_dim
from semel.errors import ModelLoadError
from semel.values.activation import ACTIVATIONS
from semel.values.model import Precision
from semel.values.sparse import SPARSE_DIM

LEXICAL_FILE = "sparse_linear.pt"
"""BGE-M3's layer from hidden states to the weights of tokens."""

_SCORING = ("ForSequenceClassification", "ForCausalLM")
"""Endings of the architectures that have a scoring head."""


def check_head(model: ModelFiles) -> None:
    """Check that a model's files have a trained head for the kind that its entry names. Raises ModelLoadError."""
    architecture = str((model.config.get("architectures") or ["none"])[0])
    if model.is_static:
        _check_static(model)
    if model.entry.kind == "cross-encoder" and not architecture.endswith(_SCORING):
        raise ModelLoadError(
            f"model {model.name!r} is not a cross-encoder: its architecture {architecture} has no trained scoring "
            "head, and semel does not initialise one at random. Use a reranker (its architecture ends in "
            "ForSequenceClassification or ForCausalLM), or leave out kind to compare vectors"
        )
    if model.entry.kind == "classifier" and not architecture.endswith("ForSequenceClassification"):
        raise ModelLoadError(
            f"model {model.name!r} is not a classifier: its architecture {architecture} does not end in "
            "ForSequenceClassification, so its files have no trained head for labels"
        )
    if model.entry.kind == "sparse":
        _check_sparse(model, architecture)


def _check_static(model: ModelFiles) -> None:
    entry = model.entry
    for name, value in (("kind", entry.kind), ("pooling", entry.pooling), ("precision", entry.precision)):
        if value not in ("embed", None, "", Precision.FULL, Precision.FLOAT32):
            raise ModelLoadError(
                f"model {model.name!r} is a static embedding, which adds rows of a table: {name} = {str(value)!r} does "
                f"not apply to it; leave out {name}"
            )


def _check_sparse(model: ModelFiles, architecture: str) -> None:
    kinds = {kind for kind, _, _ in model.modules}
    if is_lexical(model) or kinds & {"SpladePooling", "SparseAutoEncoder"}:
        return
    if kinds or not architecture.endswith("ForMaskedLM"):
        raise ModelLoadError(
            f"model {model.name!r} is not a sparse model that semel reads: its architecture is {architecture} and its "
            f"modules are {', '.join(sorted(kinds)) or 'none'}. It reads SPLADE models (ForMaskedLM, or "
            f"SpladePooling in modules.json), sparse autoencoders, and models with {LEXICAL_FILE}, as BGE-M3 has"
        )


def is_lexical(model: ModelFiles) -> bool:
    """Whether a sparse model weighs the tokens of a text by a layer of its own, as BGE-M3 does."""
    return (model.path / LEXICAL_FILE).is_file()


def most_active(model: ModelFiles) -> int:
    """The most entries of a vector that sentence-transformers keeps, by the model's files; 0 for no limit."""
    encoders = [settings for kind, settings, _ in model.modules if kind == "SparseAutoEncoder"]
    given = model.library_config.get("max_active_dims") or (encoders[0].get("k") if encoders else 0)
    return int(given or 0)


def rule_of(model: ModelFiles) -> str:
    """How hidden states become what is kept, as canonical JSON. Raises ModelLoadError as `activation_of`."""
    modules = [[kind, settings] for kind, settings, _ in model.modules]
    if model.entry.kind == "cross-encoder":
        return canonical({"activation": activation_of(model), "modules": modules, "stored": "logit"})
    if model.entry.kind == "classifier":
        kept = {"activation": _activation_of_labels(model.config), "labels": labels_of(model.config)}
        return canonical({**kept, "stored": "logits"})
    if model.entry.kind == "sparse":
        lexical = model.digest([model.path / LEXICAL_FILE]) if is_lexical(model) else ""
        return canonical({"lexical": lexical, "modules": modules, "most": most_active(model), "stored": "sparse"})
    return canonical(modules)


def row_dim(model: ModelFiles) -> int:
    """Numbers in a row; 0 if the files do not define it."""
    if model.entry.kind == "sparse":
        return SPARSE_DIM
    if model.entry.kind == "cross-encoder":
        return 1
    if model.entry.kind == "classifier":
        return len(labels_of(model.config))
    config = {"hidden_size": static_dim(model.base)} if model.is_static else model.config
    return dim_of([[kind, settings] for kind, settings, _ in model.modules], config)


def labels_of(config: dict[str, Any]) -> list[str]:
    """The names of a classifier's labels in the order of its logits, by the rules of transformers."""
    named = config.get("id2label") or {str(i): f"LABEL_{i}" for i in range(int(config.get("num_labels") or 2))}
    return [str(label) for _, label in sorted(named.items(), key=lambda item: int(item[0]))]


def _activation_of_labels(config: dict[str, Any]) -> str:
    """The function from logits to scores, by the rules of transformers' text-classification pipeline."""
    problem = config.get("problem_type")
    if problem == "regression":
        return "Identity"
    single = len(labels_of(config)) == 1
    return "Sigmoid" if single or problem == "multi_label_classification" else "Softmax"


def activation_of(model: ModelFiles) -> str:
    """The name of the function from a cross-encoder's logits to its scores, by the rules of sentence-transformers.

    Raises:
        ModelLoadError: the files name a function that is not in `ACTIVATIONS`.
    """
    config = model.config
    newer = (config.get("sentence_transformers") or {}).get("activation_fn")
    named = model.library_config.get("activation_fn") or newer or config.get("sbert_ce_default_activation_function")
    name = str(named or "Sigmoid").rsplit(".", 1)[-1]
    if name not in ACTIVATIONS or name == "Softmax":  # one logit alone has the softmax 1
        raise ModelLoadError(
            f"model {model.name!r} turns its logits into scores with {name}, and semel computes only "
            "Identity, Sigmoid, Tanh; set activation_fn in its config_sentence_transformers.json to one of them "
            "if the order of the documents is all that matters"
        )
    return name
