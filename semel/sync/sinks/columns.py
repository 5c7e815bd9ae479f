"""Rows as columns of Arrow, for Parquet and LanceDB. A payload's fields are columns of text."""

from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from semel.sync.sinks.base import Layout, Match, Rows, as_text
from semel.values.vectors import Vectors


def schema_of(layout: Layout) -> Any:
    """The columns of a collection."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("document", pa.string(), nullable=False),
            pa.field("chunk", pa.int32(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            *(pa.field(name, pa.string()) for name in layout.payload),
            pa.field("vector", pa.list_(pa.float32(), layout.dim)),
        ]
    )


def payload_columns(rows: Rows, vectors: Vectors | None, layout: Layout) -> dict[str, Any]:
    """Column → values; without vectors, there is no column for them."""
    columns: dict[str, Any] = {
        "id": [str(each) for each in rows.ids],
        "document": list(rows.documents),
        "chunk": pa.array(rows.numbers, pa.int32()),
        "text": list(rows.texts),
    }
    for name in layout.payload:
        values = [payload.get(name) for payload in rows.payloads]
        columns[name] = pa.array([None if value is None else as_text(value) for value in values], pa.string())
    if vectors is not None:
        flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
        columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, layout.dim)
    return columns


def from_columns(row: dict[str, Any], layout: Layout, score: float) -> Match:
    """The row of a search."""
    payload = {name: row[name] for name in layout.payload}
    return Match(UUID(row["id"]), row["document"], row["chunk"], row["text"], payload, score)
