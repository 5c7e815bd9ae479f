"""Rows of a job, as every kind of body that a job accepts."""

import csv
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = [
    {"id": "a", "text": "first, with a comma", "page": "3"},
    {"id": "b", "text": 'second\nwith "lines"', "page": "4"},
    {"id": "a", "text": "first, with a comma", "page": "3"},
]


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def as_ndjson(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
