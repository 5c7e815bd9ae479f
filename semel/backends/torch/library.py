"""What semel asks of torch as a library: that it is there, and how large a module is."""

from typing import Any

from semel.errors import ModelLoadError


def weight_bytes(model: Any) -> int:
    """Memory of a torch module's parameters and buffers, in bytes."""
    return sum(each.numel() * each.element_size() for each in (*model.parameters(), *model.buffers()))


def import_torch(*, library: bool = True) -> Any:
    """Import torch, and sentence-transformers or only what it is built on. Raises ModelLoadError if one is missing.

    Args:
        library: False where transformers alone loads the model: scikit-learn and SciPy, which sentence-transformers
            imports, take a second and 80 MB.
    """
    try:
        import torch

        if library:
            import sentence_transformers  # noqa: F401
        else:
            import transformers  # noqa: F401
    except ImportError as error:
        raise ModelLoadError(
            f"the torch backend needs {error.name}: pip install 'semel[cpu]' (or semel[cuda] on an NVIDIA machine)"
        ) from None
    return torch
