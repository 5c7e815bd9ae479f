"""What a cross-encoder must be."""

from semel.backends.models.source import ModelSource
from semel.errors import ModelLoadError


def check_one_score(source: ModelSource) -> None:
    """Raises ModelLoadError if the model is a classifier with several classes."""
    classes = len(source.config.get("id2label") or {0: "", 1: ""})  # transformers' default is two
    if classes != 1:
        raise ModelLoadError(
            f"model {source.name!r} sorts pairs into {classes} classes and gives no score; use a model with one label"
        )
