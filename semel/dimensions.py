"""Matryoshka models: vectors that can be cut to a smaller size."""

import numpy as np

from semel.errors import BadInputError
from semel.values.model import Space
from semel.values.vectors import Vectors, unit_rows


def check_dimensions(dimensions: int | None, space: Space) -> None:
    """Raises BadInputError if the model was not trained to be cut to this size."""
    if dimensions not in (None, space.dim, *space.matryoshka_dims):
        sizes = ", ".join(str(d) for d in sorted({*space.matryoshka_dims, space.dim}))
        raise BadInputError(
            f"model {space.model!r} cannot be cut to {dimensions} dimensions (it offers {sizes}); "
            "if it was trained for this size, add it to the model's matryoshka_dims in semel.toml"
        )


def cut_dimensions(vectors: Vectors, dimensions: int | None, space: Space) -> Vectors:
    """Cut matryoshka vectors to their first `dimensions` numbers; float32 (n, dimensions).

    They are scaled to length 1 again, except in a variant that asks for vectors that are not.

    Raises BadInputError as `check_dimensions` does.
    """
    check_dimensions(dimensions, space)
    if dimensions is None or dimensions == space.dim:
        return vectors
    cut = np.ascontiguousarray(vectors[:, :dimensions])
    return cut if space.variant.normalize is False else unit_rows(cut)
