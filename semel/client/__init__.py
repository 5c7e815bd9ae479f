"""The HTTP SDK: `from semel import Client, AsyncClient`. It imports only the values and errors of semel."""

from semel.client.address import DEFAULT_URL
from semel.client.async_client import AsyncClient
from semel.client.client import Client
from semel.client.records import Classification, Estimate, JobEvent, Relevance, RemoteBatch, RemoteJob, RemoteModel

__all__ = [
    "DEFAULT_URL",
    "AsyncClient",
    "Classification",
    "Client",
    "Estimate",
    "JobEvent",
    "Relevance",
    "RemoteBatch",
    "RemoteJob",
    "RemoteModel",
]
