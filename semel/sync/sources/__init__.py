"""Where documents come from: one file for each kind of source."""

from semel.sync.sources.base import Source
from semel.sync.sources.objects import Objects
from semel.sync.sources.opening import open_source, shown_source

__all__ = ["Objects", "Source", "open_source", "shown_source"]
