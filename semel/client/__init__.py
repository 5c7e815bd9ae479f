"""The HTTP SDK: `from semel import Client`. It imports only the values and errors of semel."""

from semel.client.client import DEFAULT_URL, Client
from semel.client.records import JobEvent, Relevance, RemoteBatch, RemoteJob, RemoteModel

__all__ = ["DEFAULT_URL", "Client", "JobEvent", "Relevance", "RemoteBatch", "RemoteJob", "RemoteModel"]
