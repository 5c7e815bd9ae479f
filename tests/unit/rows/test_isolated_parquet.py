"""Parquet of strangers: the same rows as in this process, and a crash of the reader is an error of the file."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import semel.rows.isolated_parquet as isolated
from semel.errors import BadInputError
from semel.rows.bounded_parquet import BoundedParquet
from semel.rows.isolated_parquet import IsolatedParquet


def table(count: int) -> pa.Table:
    return pa.table(
        {
            "text": [None if i % 7 == 0 else f"text {i % 100}" for i in range(count)],
            "tags": [[f"tag {i % 3}", None] if i % 2 else None for i in range(count)],
            "page": [{"title": f"t{i % 5}", "lines": [i, i]} for i in range(count)],
        }
    )


@pytest.mark.parametrize("columns", [None, ["text", "none"], ["page"]])
def test_the_rows_are_those_that_are_read_in_this_process(tmp_path: Path, columns: list[str] | None) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(3000), path, row_group_size=700)
    with IsolatedParquet(path, columns=columns) as one, BoundedParquet(path, columns=columns) as other:
        assert one.names == other.names == ["text", "tags", "page"]
        rows = [row for piece in one.pieces() for row in piece]
        assert rows == [row for piece in other.pieces() for row in piece]
        assert len(rows) == 3000


def test_a_reader_that_is_left_early_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(100_000), path)
    with IsolatedParquet(path, columns=None) as file:
        assert next(file.pieces())
        child = file._child
    assert child.returncode is not None


def test_a_file_that_is_none_keeps_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(BadInputError, match=r"a\.parquet: not a Parquet file: "):
        IsolatedParquet(tmp_path / "a.parquet", columns=None)


def test_a_crash_of_the_reader_is_an_error_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = tmp_path / "crash"
    crash.write_text("#!/bin/sh\nkill -ABRT $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(isolated.sys, "executable", str(crash))
    with pytest.raises(BadInputError, match=r"a\.parquet: not a Parquet file that can be read: .*SIGABRT"):
        IsolatedParquet(tmp_path / "a.parquet", columns=None)


def test_a_row_that_is_too_large_does_not_travel(tmp_path: Path) -> None:
    many = 30_000_000
    lists = pa.ListArray.from_arrays(pa.array([0, many, many], pa.int32()), pa.array(np.zeros(many, np.int8)))
    pq.write_table(pa.table({"text": ["a", "b"], "other": lists}), tmp_path / "a.parquet", compression="zstd")
    with IsolatedParquet(tmp_path / "a.parquet", columns=None) as file:
        first, second = (row for piece in file.pieces() for row in piece)
    assert first == "the row is larger than 67108864 bytes"
    assert second == {"text": "b", "other": []}


def test_a_dictionary_that_fills_the_memory_is_refused(tmp_path: Path) -> None:
    texts = [f"{i} {'x' * 2_000_000}" for i in range(100)]
    repeated = pa.DictionaryArray.from_arrays(pa.array(np.arange(2000, dtype=np.int32) % 100), pa.array(texts))
    pq.write_table(
        pa.table({"text": repeated}), tmp_path / "a.parquet", compression="zstd", dictionary_pagesize_limit=1 << 30
    )
    with (
        pytest.raises(BadInputError, match=r"a\.parquet"),
        IsolatedParquet(tmp_path / "a.parquet", columns=None) as file,
    ):
        list(file.pieces())
