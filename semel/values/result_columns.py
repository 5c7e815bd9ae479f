"""How what a model computes is written in files: as fields of a JSON object, and as columns of Arrow and Parquet.

| kind | JSON | columns |
|---|---|---|
| `embed` | `embedding` | `embedding`: fixed-size list of float32 |
| `cross-encoder` | `score` | `embedding`: a list of one float32 |
| `classifier` | `label`, that with the highest score, and `scores` by label | `label`, and `scores`: fixed-size list |
| `sparse` | `sparse_embedding`, with `indices` and `values` | `sparse_embedding`: struct of `indices` and `values` |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from semel.errors import BadInputError
from semel.values.model import Kind
from semel.values.sparse import SparseVector, sparse_rows
from semel.values.vectors import AnyVectors

if TYPE_CHECKING:  # it takes a tenth of a second, and most commands write no file
    import pyarrow as pa


@dataclass(frozen=True)
class ResultColumns:
    """The columns of one model.

    Attributes:
        dim: numbers in a row.
        labels: the names of a classifier's scores.
    """

    kind: Kind
    dim: int
    labels: tuple[str, ...] = ()

    def as_json(self, row: Any) -> dict[str, Any]:
        """The fields of one row; their numbers may be those of numpy."""
        if self.kind == "sparse":
            return {"sparse_embedding": {"indices": row.indices, "values": row.values}}
        if self.kind == "classifier":
            return {"label": self.labels[row.argmax()], "scores": dict(zip(self.labels, row, strict=True))}
        return {"score": row[0]} if self.kind == "cross-encoder" else {"embedding": row}

    def fields(self) -> list[pa.Field]:
        """The columns."""
        import pyarrow as pa

        if self.kind == "sparse":
            return [pa.field("sparse_embedding", _sparse_type())]
        if self.kind == "classifier":
            return [pa.field("label", pa.string()), pa.field("scores", pa.list_(pa.float32(), self.dim))]
        return [pa.field("embedding", pa.list_(pa.float32(), self.dim))]

    def arrays(self, rows: AnyVectors, failed: list[int]) -> list[pa.Array]:
        """The values of each column; null in the rows that failed, whose contents mean nothing."""
        import pyarrow as pa

        missing = np.zeros(len(rows), np.bool_)
        missing[failed] = True
        if self.kind == "sparse":
            structs = [None if gone else row.as_dict() for row, gone in zip(rows, missing, strict=True)]
            return [pa.array(structs, _sparse_type())]
        flat = pa.array(np.ascontiguousarray(rows, np.float32).reshape(-1))
        lists = pa.FixedSizeListArray.from_arrays(flat, self.dim, mask=pa.array(missing))
        if self.kind != "classifier":
            return [lists]
        best = [None if gone else self.labels[at] for at, gone in zip(rows.argmax(axis=1), missing, strict=True)]
        return [pa.array(best, pa.string()), lists]

    def rows(self, batch: pa.RecordBatch) -> AnyVectors:
        """The rows of a record batch with these columns; a failed one is NaN or None."""
        column = batch.column(self.fields()[-1].name)
        if self.kind == "sparse":
            return sparse_rows(None if row is None else _sparse(row) for row in column.to_pylist())
        flat = column.values.to_numpy(zero_copy_only=False)
        return np.asarray(flat[column.offset * self.dim :][: len(column) * self.dim].reshape(-1, self.dim))

    def check_matrix(self) -> None:
        """Check that the rows form a matrix, as .npy holds it. Raises BadInputError."""
        if self.kind == "sparse":
            raise BadInputError("npy cannot hold sparse vectors; write them as ndjson (.jsonl), arrow or parquet")


def _sparse_type() -> pa.DataType:
    import pyarrow as pa

    return pa.struct([("indices", pa.list_(pa.uint32())), ("values", pa.list_(pa.float32()))])


def _sparse(row: dict[str, list[Any]]) -> SparseVector:
    return SparseVector(np.array(row["indices"], np.uint32), np.array(row["values"], np.float32))
