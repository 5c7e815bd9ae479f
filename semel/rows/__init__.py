"""Rows and texts from files and folders, read as a stream."""

from semel.rows.folder import skipped_files
from semel.rows.formats import FILE_SUFFIXES, has_known_format
from semel.rows.opened import COMPRESSED
from semel.rows.reading import read_items, read_records
from semel.rows.record import Item, Record

__all__ = [
    "COMPRESSED",
    "FILE_SUFFIXES",
    "Item",
    "Record",
    "has_known_format",
    "read_items",
    "read_records",
    "skipped_files",
]
