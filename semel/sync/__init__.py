"""Documents to an index that follows them: `semel sync`, and `semel.sync.run` for documents of your own.

from semel import sync
report = sync.run(source=loader.lazy_load(), sink="lancedb:./index/handbook", model="minilm")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semel.sync.from_python import run as run

__all__ = ["run"]


def __getattr__(name: str) -> Any:
    """Import `run` when it is first used: the server uses other parts of this package, and no model."""
    if name != "run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from semel.sync.from_python import run

    return run
