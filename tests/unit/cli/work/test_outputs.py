"""Files of vectors appear whole or not at all, and hold every input in its place."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semel.cli.work.outputs import Block, check_folder, check_output, open_output, read_record_batches
from semel.errors import BadInputError, UnavailableError
from semel.rows import Item
from semel.values.result_columns import ResultColumns
from tests.support.values import vectors

COLUMNS = ResultColumns("embed", 4)

NAMES = pytest.mark.parametrize("name", ["out.npy", "out.jsonl", "out.parquet"])


def items(count: int, first: int = 0) -> list[Item]:
    return [Item(first + i, f"text {first + i}", f"in.txt:{first + i + 1}") for i in range(count)]


def block(count: int, first: int = 0, errors: dict[int, str] | None = None) -> Block:
    return Block(items(count, first), vectors(count, seed=first), errors or {}, [False] * count)


def write(path: Path, *blocks: Block) -> None:
    with open_output(path, COLUMNS) as output:
        for one in blocks:
            output.write(one)


def write_until(error: BaseException, path: Path) -> None:
    """Write a block, then raise."""
    with open_output(path, COLUMNS) as output:
        output.write(block(2))
        raise error


def read(path: Path) -> np.ndarray:
    """The vectors of a file, float32 (n, 4)."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".jsonl":
        rows = [json.loads(line)["embedding"] for line in path.read_text().splitlines()]
    else:
        rows = pq.read_table(path)["embedding"].to_pylist()
    return np.array(rows, np.float32)


@NAMES
def test_blocks_are_joined_in_order(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, block(3), block(2, first=3))
    np.testing.assert_array_equal(read(path), np.concatenate([vectors(3, seed=0), vectors(2, seed=3)]))


@NAMES
def test_the_file_appears_when_it_is_complete(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with open_output(path, COLUMNS) as output:
        output.write(block(2))
        assert not path.exists()
    assert [found.name for found in tmp_path.glob("out*")] == [name]


@NAMES
@pytest.mark.parametrize("stop", [BadInputError("no"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_file_that_is_not_completed(tmp_path: Path, name: str, stop: BaseException) -> None:
    with pytest.raises(type(stop)):
        write_until(stop, tmp_path / name)
    assert not list(tmp_path.glob("out*"))


@NAMES
def test_an_old_file_stays_when_the_new_one_is_not_completed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("mine")
    with pytest.raises(KeyboardInterrupt):
        write_until(KeyboardInterrupt(), path)
    assert path.read_text() == "mine"


@NAMES
def test_the_suffix_decides_whatever_its_case(tmp_path: Path, name: str) -> None:
    path = tmp_path / name.upper()
    check_output(path, overwrite=False)
    write(path, block(1))
    path.rename(tmp_path / name)
    assert read(tmp_path / name).shape == (1, 4)


def test_an_empty_npy_has_a_shape(tmp_path: Path) -> None:
    write(tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == (0, 4)


def test_npy_has_no_place_for_a_missing_row(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"in\.txt:2 has no vector \(is empty\), and \.npy cannot mark"):
        write(tmp_path / "out.npy", block(3, errors={1: "is empty"}))
    assert not list(tmp_path.glob("out*"))


def test_jsonl_has_an_error_in_place_of_the_vector(tmp_path: Path) -> None:
    write(tmp_path / "out.jsonl", block(2, errors={0: "is empty"}))
    failed, good = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert failed == {"index": 0, "text": "text 0", "error": "is empty"}
    assert set(good) == {"index", "text", "truncated", "embedding"}


def test_parquet_has_a_null_in_place_of_the_vector(tmp_path: Path) -> None:
    write(tmp_path / "out.parquet", block(2, errors={0: "is empty"}))
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 4)
    assert [row is None for row in table["embedding"].to_pylist()] == [True, False]
    assert table["error"].to_pylist() == ["is empty", None]
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist()[1], np.float32), vectors(2)[1])


@pytest.mark.parametrize(("ident", "stored"), [("a", "a"), (7, "7"), (None, None)])
def test_ids_are_strings_in_parquet_and_as_they_came_in_jsonl(
    tmp_path: Path, ident: str | int | None, stored: str | None
) -> None:
    one = Block([Item(0, "t", "in.jsonl:1", id=ident)], vectors(1), {}, [True])
    write(tmp_path / "out.parquet", one)
    write(tmp_path / "out.jsonl", one)
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (row["id"], row["truncated"]) == (stored, True)
    line = json.loads((tmp_path / "out.jsonl").read_text())
    assert (line.get("id"), line["truncated"]) == (ident, True)


def test_half_a_surrogate_pair_breaks_no_format(tmp_path: Path) -> None:
    made = Block(
        [Item(0, "t", "in.jsonl:1", id="\ud800"), Item(1, None, "in.jsonl:2")], vectors(2), {1: "\ud800"}, [False] * 2
    )
    write(tmp_path / "out.parquet", made)
    write(tmp_path / "out.jsonl", made)
    good, bad = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (good["id"], bad["error"]) == ("?", "?")
    good, bad = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert (good["id"], bad["error"]) == ("\ud800", "\ud800")


def test_jsonl_keeps_letters_readable(tmp_path: Path) -> None:
    write(tmp_path / "out.jsonl", Block([Item(0, "émigré 漢字", "in.txt:1")], vectors(1), {}, [False]))
    assert "émigré 漢字" in (tmp_path / "out.jsonl").read_text(encoding="utf-8")


def test_a_path_is_checked_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "mine.npy").touch()
    check_output(tmp_path / "new.npy", overwrite=False)
    check_output(tmp_path / "mine.npy", overwrite=True)
    with pytest.raises(BadInputError, match=r"mine\.npy exists; use --overwrite to replace it"):
        check_output(tmp_path / "mine.npy", overwrite=False)
    with pytest.raises(BadInputError, match=r"unknown output format '\.csv' \(known: \.npy, \.jsonl, \.parquet\)"):
        check_output(tmp_path / "out.csv", overwrite=True)
    with pytest.raises(BadInputError, match=r"no does not exist; create it before writing out\.npy"):
        check_output(tmp_path / "no" / "out.npy", overwrite=True)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="does not exist"):
        check_folder(tmp_path / "file" / "out.npy")


def arrow_bytes(*numbers: int) -> bytes:
    """An Arrow stream with one batch for each number."""
    schema = pa.schema([("n", pa.int64())])
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        for number in numbers:
            writer.write_batch(pa.record_batch([pa.array([number])], schema=schema))
    return sink.getvalue()


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_batches_are_read_however_the_bytes_are_cut(size: int) -> None:
    data = arrow_bytes(1, 2, 3)
    parts = (data[at : at + size] for at in range(0, len(data), size))
    assert [batch.column("n").to_pylist() for batch in read_record_batches(parts)] == [[1], [2], [3]]


def test_empty_parts_are_no_end(tmp_path: Path) -> None:
    data = arrow_bytes(1)
    assert len(list(read_record_batches(iter([b"", data[:40], b"", data[40:]])))) == 1


@pytest.mark.parametrize("kept", [0, 20, 200])
def test_a_stream_that_ends_early_is_no_result(kept: int) -> None:
    with pytest.raises(UnavailableError, match=r"the results ended early .* run the command again"):
        list(read_record_batches(iter([arrow_bytes(1, 2)[:kept]])))


def test_a_connection_that_breaks_is_no_result() -> None:
    def breaking() -> Iterator[bytes]:
        yield arrow_bytes(1)[:40]
        raise ConnectionResetError("reset by peer")

    with pytest.raises(UnavailableError, match="reset by peer"):
        list(read_record_batches(breaking()))
