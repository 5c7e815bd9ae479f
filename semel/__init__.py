"""semel: every text is embedded once.

`from semel import Client` connects to a semel server, and `AsyncClient` does so from an event loop. `Local` needs
no server. Heavy modules are imported only when they are used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semel.client import AsyncClient, Client
    from semel.local import Local

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "Local", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("AsyncClient", "Client"):
        from semel import client

        return getattr(client, name)
    if name == "Local":
        from semel.local import Local

        return Local
    raise AttributeError(f"module 'semel' has no attribute {name!r}")
