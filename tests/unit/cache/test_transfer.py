"""A space that moves from one cache to another as a file, whole or not at all."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semel.cache import transfer as transfer_module
from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.cache.transfer import export_space, exported_space, import_space
from semel.db import Database
from semel.errors import BadInputError
from tests.support.databases import sqlite_database
from tests.support.values import put, space, vectors

SPACE, OTHER = space(), space(weights="w2")
TEXTS = [f"t{i}" for i in range(5)]
KEYS = input_keys(SPACE.fingerprint, TEXTS)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[VectorStore]:
    """An empty cache in another database."""
    (tmp_path / "elsewhere").mkdir()
    with sqlite_database(tmp_path / "elsewhere") as database:
        yield VectorStore(database)


@pytest.fixture
def file(db: Database, store: VectorStore, tmp_path: Path) -> Path:
    """An export of five vectors."""
    put(store, TEXTS, vectors(5))
    path = tmp_path / "space.parquet"
    list(export_space(db, SPACE, path))
    return path


def rewrite(file: Path, column: str, row: int, value: object) -> None:
    """Change one value of an exported file."""
    table = pq.read_table(file)
    values = table.column(column).to_pylist()
    values[row] = value
    at = table.schema.names.index(column)
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type)), file)


def test_an_imported_space_has_the_same_vectors_bit_for_bit(file: Path, elsewhere: VectorStore) -> None:
    assert list(import_space(elsewhere, SPACE, file)) == [(5, 5)]
    found = elsewhere.get_many(KEYS, dim=4)
    assert found.vectors is not None
    assert (found.vectors == vectors(5)).all()
    assert found.tokens.tolist() == [3] * 5


def test_a_file_describes_its_space(file: Path) -> None:
    assert exported_space(file) == SPACE


def test_only_the_vectors_of_the_space_are_exported(db: Database, store: VectorStore, tmp_path: Path) -> None:
    put(store, ["a", "b"], vectors(2))
    put(store, ["a"], vectors(1), into=OTHER)
    list(export_space(db, OTHER, tmp_path / "other.parquet"))
    table = pq.read_table(tmp_path / "other.parquet")
    assert table.column("key").to_pylist() == input_keys(OTHER.fingerprint, ["a"])


def test_float16_rows_stay_as_they_are(db: Database, elsewhere: VectorStore, tmp_path: Path) -> None:
    put(VectorStore(db, dtype="float16"), ["t0"], vectors(1))
    list(export_space(db, SPACE, tmp_path / "half.parquet"))
    list(import_space(elsewhere, SPACE, tmp_path / "half.parquet"))
    here, there = (one.get_many(KEYS[:1], dim=4).vectors for one in (VectorStore(db), elsewhere))
    assert here is not None
    assert (here == there).all()


def test_export_and_import_report_their_progress(
    db: Database, store: VectorStore, elsewhere: VectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, TEXTS, vectors(5))
    put(elsewhere, ["t0"], vectors(1))
    monkeypatch.setattr(transfer_module, "_SLICE", 2)
    assert list(export_space(db, SPACE, tmp_path / "space.parquet")) == [2, 4, 5]
    progress = list(import_space(elsewhere, SPACE, tmp_path / "space.parquet"))
    assert [read for _, read in progress] == [2, 4, 5]
    assert progress[-1] == (4, 5)


def test_a_vector_that_the_cache_has_already_stays(file: Path, elsewhere: VectorStore) -> None:
    own = vectors(1, seed=1)
    put(elsewhere, ["t0"], own)
    assert list(import_space(elsewhere, SPACE, file)) == [(4, 5)]
    assert (elsewhere.get_many(KEYS[:1], dim=4).vectors == own).all()
    assert list(import_space(elsewhere, SPACE, file)) == [(0, 5)]


def test_a_space_without_vectors_gives_a_file_without_rows(db: Database, tmp_path: Path) -> None:
    assert list(export_space(db, SPACE, tmp_path / "empty.parquet")) == []
    assert exported_space(tmp_path / "empty.parquet") == SPACE
    assert pq.read_table(tmp_path / "empty.parquet").num_rows == 0


def test_an_export_that_stops_leaves_no_file(
    db: Database, store: VectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, TEXTS, vectors(5))
    monkeypatch.setattr(transfer_module, "_SLICE", 2)
    export = export_space(db, SPACE, tmp_path / "exports" / "space.parquet")
    (tmp_path / "exports").mkdir()
    next(export)
    export.close()  # type: ignore[attr-defined]  # a generator, as after Ctrl-C
    assert list((tmp_path / "exports").iterdir()) == []


def test_an_export_into_a_missing_folder_raises(db: Database, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(export_space(db, SPACE, tmp_path / "missing" / "space.parquet"))


def test_a_parquet_file_of_another_origin_is_no_export(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "texts.parquet")
    assert exported_space(tmp_path / "texts.parquet") is None


@pytest.mark.parametrize("content", [b"", b"no Parquet file"])
def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.parquet").write_bytes(content)
    with pytest.raises(BadInputError, match=r"bad\.parquet: not a Parquet file"):
        exported_space(tmp_path / "bad.parquet")


@pytest.mark.parametrize(("column", "value"), [("data", b"\1" * 16), ("data", b""), ("crc", 0), ("key", b"\1" * 32)])
def test_an_import_stops_at_a_damaged_row_and_keeps_the_slices_before_it(
    file: Path, elsewhere: VectorStore, monkeypatch: pytest.MonkeyPatch, column: str, value: object
) -> None:
    monkeypatch.setattr(transfer_module, "_SLICE", 2)
    rewrite(file, column, 3, value)
    progress = import_space(elsewhere, SPACE, file)
    assert next(progress) == (2, 2)
    with pytest.raises(BadInputError, match=r"space\.parquet: .* is damaged; it is not stored; export it again"):
        next(progress)
    assert len(elsewhere.present(KEYS)) == 2
