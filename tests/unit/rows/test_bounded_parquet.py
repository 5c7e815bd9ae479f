"""Parquet in pieces: the rows are those that pyarrow reads, and a small file cannot become a large one in memory."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import semel.rows.bounded_parquet as bounded
from semel.errors import BadInputError
from semel.rows.bounded_parquet import BoundedParquet

MEGABYTE = "x" * 1_000_000


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, compression="zstd")
    return path


def rows(path: Path, columns: list[str] | None = None) -> list[Any]:
    with BoundedParquet(path, columns=columns) as file:
        return [row for piece in file.pieces() for row in piece]


@pytest.mark.parametrize("piece_bytes", [2000, 64 << 20])
def test_rows_of_every_type_are_what_pyarrow_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    monkeypatch.setattr(bounded, "PIECE_BYTES", piece_bytes)
    count = 3000
    table = pa.table(
        {
            "text": [None if i % 7 == 0 else f"text {i % 100}" for i in range(count)],
            "number": list(range(count)),
            "tags": [[f"tag {i % 3}", None] if i % 2 else None for i in range(count)],
            "page": [{"title": f"t{i % 5}", "lines": [i, i]} for i in range(count)],
            "map": pa.array([[("a", f"v{i % 4}")] for i in range(count)], pa.map_(pa.string(), pa.string())),
            "bytes": [b"\x00\xff"] * count,
            "vector": pa.array([[0.5, i] for i in range(count)], pa.list_(pa.float32(), 2)),
        }
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=700)
    assert rows(path) == table.to_pylist()
    assert rows(path, ["text", "nothing"]) == table.select(["text"]).to_pylist()


REPEATED = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1024, np.int32)), pa.array([MEGABYTE]))
"""A string of a megabyte, 1,024 times; as a list of Python's strings it would fill a gigabyte of the tests."""

EACH = pa.array(np.arange(1025), pa.int32())


@pytest.mark.parametrize(
    "other",
    [
        REPEATED,
        pa.ListArray.from_arrays(EACH, REPEATED),
        pa.StructArray.from_arrays([REPEATED], ["a"]),
        pa.MapArray.from_arrays(EACH, pa.array(["k"] * 1024), REPEATED),
    ],
    ids=["strings", "lists", "structs", "maps"],
)
def test_pieces_of_a_small_file_that_holds_a_gigabyte_are_small(tmp_path: Path, other: Any) -> None:
    path = write(tmp_path / "bomb.parquet", text=[f"t{i}" for i in range(1024)], other=other)
    assert path.stat().st_size < 100_000
    seen = 0
    with BoundedParquet(path, columns=None) as file:
        for piece in file.pieces():
            assert len(piece) <= 64, "64 MiB"
            seen += len(piece)
    assert seen == 1024


def test_a_row_that_is_too_large_is_left_out_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "PIECE_BYTES", 1_500_000)
    path = write(tmp_path / "a.parquet", text=["a", MEGABYTE * 2, "c"])
    assert rows(path) == [{"text": "a"}, "the row is larger than 1500000 bytes", {"text": "c"}]


def test_a_text_that_is_not_utf8_fails_alone(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff\xfe", b"c"], pa.binary()).view(pa.string())
    path = write(tmp_path / "a.parquet", text=texts)
    first, bad, last = rows(path)
    assert (first, last) == ({"text": "a"}, {"text": "c"})
    assert "a value cannot be read: 'utf-8' codec can't decode byte 0xff" in bad


def test_values_of_a_large_fixed_size_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", text=pa.array([b"x" * 5000], pa.binary(5000)))
    with pytest.raises(BadInputError, match="have 5000 bytes each"):
        BoundedParquet(path, columns=None)


def test_a_column_that_is_nothing_but_compression_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    table = pa.table({"text": ["x" * 100_000_000]})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    with pytest.raises(BadInputError, match="which is no text"):
        BoundedParquet(path, columns=None)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_process_stays_small(tmp_path: Path) -> None:
    path = write(tmp_path / "bomb.parquet", text=[f"t{i}" for i in range(1024)], other=REPEATED)
    program = f"""
from pathlib import Path
from semel.rows import read_records
assert sum(1 for _ in read_records(Path({str(path)!r}), ["text"], max_text_bytes=8 << 20)) == 1024
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 450e6
