"""semel: every text is embedded once.

`from semel import Client` connects to a running semel server. Heavy modules are imported only when they are used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semel.client import Client

__version__ = "0.1.0"
__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from semel.client import Client

        return Client
    raise AttributeError(f"module 'semel' has no attribute {name!r}")
