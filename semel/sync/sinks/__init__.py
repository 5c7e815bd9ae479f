"""Where vectors go: one file for each kind of sink, behind the interfaces in `base`."""

from semel.sync.sinks.base import Layout, Match, Rows, Sink, SinkCollection, agree, vectors_of
from semel.sync.sinks.opening import index_name, open_sink, shown_sink

__all__ = [
    "Layout",
    "Match",
    "Rows",
    "Sink",
    "SinkCollection",
    "agree",
    "index_name",
    "open_sink",
    "shown_sink",
    "vectors_of",
]
