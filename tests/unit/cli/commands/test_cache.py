"""`semel cache …` on a small database: statistics, checks, pruning, exports and imports."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import update

from semel.cache.keys import input_keys
from semel.cache.schema import vectors as vector_rows
from semel.cache.store import VectorStore
from semel.db import Database
from semel.tasks.jobs.rows import NewChunk
from semel.values.text import Lane
from tests.support.cli import Cli
from tests.support.jobs import Jobs
from tests.support.values import put, space, vectors

OTHER = space(4, weights="w2")


@pytest.fixture
def db(folder: Path) -> Iterator[Database]:
    """The database that the commands open."""
    (folder / "home").mkdir()
    database = Database(f"sqlite:///{folder / 'home' / 'semel.db'}")
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def store(db: Database) -> VectorStore:
    """A cache with four vectors of 16 bytes in one space."""
    filled = VectorStore(db)
    put(filled, ["a", "b", "c", "d"], vectors(4))
    return filled


def damage(db: Database, count: int) -> None:
    """Give the first rows a wrong checksum."""
    with db.write() as conn:
        keys = conn.exec_driver_sql("SELECT key FROM vectors ORDER BY key").scalars().all()[:count]
        conn.execute(update(vector_rows).where(vector_rows.c.key.in_(keys)).values(crc=1))


def age(db: Database, text_count: int, seconds: float) -> None:
    """Make the first rows older."""
    with db.write() as conn:
        keys = conn.exec_driver_sql("SELECT key FROM vectors ORDER BY key").scalars().all()[:text_count]
        created = time.time() - seconds
        conn.execute(update(vector_rows).where(vector_rows.c.key.in_(keys)).values(created_at=created))


def entries(cli: Cli) -> int:
    return sum(found["entries"] for found in cli("cache", "stats", "--json").json)


def test_an_empty_cache_says_so(cli: Cli) -> None:
    assert cli("cache", "stats").out == "the cache is empty\n"
    assert cli("cache", "stats", "--json").json == []


def test_statistics_name_each_space(cli: Cli, store: VectorStore) -> None:
    put(store, ["a"], vectors(1), into=OTHER)
    largest, smallest = cli("cache", "stats", "--json").json
    assert (largest["entries"], largest["bytes"], largest["fingerprint"]) == (4, 64, space().fingerprint.hex())
    assert (smallest["entries"], smallest["weights"]) == (1, "w2")
    heading, first, second = cli("cache", "stats").out.splitlines()
    assert heading.split() == ["model", "prompt", "dim", "precision", "entries", "MB", "fingerprint"]
    assert first.split() == ["m", "–", "4", "full", "4", "0.0", space().fingerprint.hex()[:16]]
    assert second.split()[-1] == OTHER.fingerprint.hex()[:16]


def test_verify_reads_every_vector(cli: Cli, store: VectorStore) -> None:
    done = cli("cache", "verify")
    assert (done.code, done.out.strip()) == (0, "4 vectors read, 0 damaged")


def test_damaged_vectors_are_listed_and_fail_the_command(cli: Cli, db: Database, store: VectorStore) -> None:
    damage(db, 2)
    done = cli("cache", "verify")
    first, *keys = done.out.strip().splitlines()
    assert (done.code, first) == (1, "4 vectors read, 2 damaged")
    assert [len(bytes.fromhex(key)) for key in keys] == [32, 32]
    assert entries(cli) == 4, "nothing is deleted without --repair"


def test_repair_deletes_the_damaged_vectors_only(cli: Cli, db: Database, store: VectorStore) -> None:
    damage(db, 1)
    done = cli("cache", "verify", "--repair")
    assert done.code == 0
    assert "4 vectors read, 1 damaged and deleted" in done.out
    assert cli("cache", "verify").out.strip() == "3 vectors read, 0 damaged"


def test_prune_asks_for_a_condition(cli: Cli, store: VectorStore) -> None:
    done = cli("cache", "prune")
    assert (done.code, done.error) == (2, "choose what to delete with --max-bytes, --older-than or --fingerprint")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--max-bytes", "many", "--max-bytes takes a number with a unit (kb, mb, gb, tb), not 'many'"),
        ("--max-bytes", "5 parsecs", "not '5 parsecs'"),
        ("--older-than", "10", "--older-than takes a number with a unit (s, m, h, d), not '10'"),
        ("--older-than", "-3d", "not '-3d'"),
        ("--older-than", "1w", "not '1w'"),
        ("--fingerprint", "zz", "0 vector spaces have a fingerprint that starts with 'zz'"),
    ],
)
def test_a_condition_that_cannot_be_read_deletes_nothing(
    cli: Cli, store: VectorStore, option: str, value: str, message: str
) -> None:
    done = cli("cache", "prune", option, value)
    assert done.code == 2
    assert message in done.error
    assert entries(cli) == 4


def test_a_dry_run_counts_and_deletes_nothing(cli: Cli, store: VectorStore) -> None:
    assert cli("cache", "prune", "--max-bytes", "32b", "--dry-run").out == "2 vectors would be deleted\n"
    assert entries(cli) == 4


def test_max_bytes_keeps_that_much(cli: Cli, store: VectorStore) -> None:
    assert cli("cache", "prune", "--max-bytes", "48", "--yes").out == "1 vectors deleted\n"
    assert cli("cache", "prune", "--max-bytes", "1GB").out == "0 vectors deleted\n"
    assert entries(cli) == 3


@pytest.mark.parametrize(("older_than", "left"), [("90m", 4), ("59m", 3), ("0.5h", 3), ("3599s", 3), ("1d", 4)])
def test_older_than_deletes_what_is_older(
    cli: Cli, db: Database, store: VectorStore, older_than: str, left: int
) -> None:
    age(db, 1, seconds=3600)
    cli("cache", "prune", "--older-than", older_than, "--yes")
    assert entries(cli) == left


def test_a_prefix_of_a_fingerprint_is_enough(cli: Cli, store: VectorStore) -> None:
    put(store, ["a", "b"], vectors(2), into=OTHER)
    prefix = OTHER.fingerprint.hex()[:10].upper()
    assert cli("cache", "prune", "--yes", "--fingerprint", prefix).out == "2 vectors deleted\n"
    (left,) = cli("cache", "stats", "--json").json
    assert left["fingerprint"] == space().fingerprint.hex()


def test_vectors_of_an_unexpired_job_are_kept(cli: Cli, db: Database, store: VectorStore) -> None:
    jobs = Jobs(db, window_s=60, retention_s=60)
    job = jobs.add(space(), lane=Lane.BULK, device="cpu", why="only one", truncate=True)
    keys = input_keys(space().fingerprint, ["a", "b"])
    jobs.add_chunks(job, [NewChunk(0, keys, ["a", "b"])], lookup=store.lookup_on)
    planned = cli("cache", "prune", "--max-bytes", "0", "--dry-run")
    assert planned.out == "2 vectors would be deleted\n"
    assert f"2 more vectors are kept for 1 jobs that have not expired ({job.id})" in planned.err
    assert cli("cache", "prune", "--max-bytes", "0", "-y").out == "2 vectors deleted\n"
    assert entries(cli) == 2


def test_vectors_are_not_deleted_without_an_answer(cli: Cli, store: VectorStore) -> None:
    done = cli("cache", "prune", "--max-bytes", "0")
    assert (done.code, "add --yes to delete them without a question" in done.error) == (2, True)
    assert entries(cli) == 4


def test_an_export_moves_vectors_to_another_cache(
    cli: Cli, store: VectorStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = cli("cache", "export", "moved.parquet")
    assert done.out.strip() == "4 vectors of m written to moved.parquet"
    monkeypatch.setenv("SEMEL_HOME", str(folder / "elsewhere"))
    imported = cli("cache", "import", "moved.parquet")
    assert imported.out.strip() == "4 vectors stored, 0 were in the cache already"
    assert cli("cache", "import", "moved.parquet").out.strip() == "0 vectors stored, 4 were in the cache already"
    assert cli("cache", "verify").out.strip() == "4 vectors read, 0 damaged"


def test_an_export_is_a_parquet_file(cli: Cli, store: VectorStore, folder: Path) -> None:
    done = cli("cache", "export", "vectors.npy")
    assert (done.code, done.error) == (2, "an export must be a .parquet file, not 'vectors.npy'")
    assert not (folder / "vectors.npy").exists()


def test_an_export_into_a_folder_that_does_not_exist_is_refused(cli: Cli, store: VectorStore) -> None:
    done = cli("cache", "export", "no/such/out.parquet")
    assert done.code == 2
    assert "no/such does not exist; create it before writing out.parquet" in done.error


def test_an_export_needs_one_space(cli: Cli, store: VectorStore, folder: Path) -> None:
    put(store, ["a"], vectors(1), into=OTHER)
    done = cli("cache", "export", "out.parquet")
    assert "2 vector spaces have a fingerprint that starts with ''" in done.error
    assert "'semel cache stats' lists them" in done.error
    assert not list(folder.glob("out*"))
    named = cli("cache", "export", "out.parquet", "--fingerprint", OTHER.fingerprint.hex()[:6])
    assert named.out.strip() == "1 vectors of m written to out.parquet"


def test_an_export_that_was_damaged_is_refused(cli: Cli, store: VectorStore, folder: Path) -> None:
    cli("cache", "export", "out.parquet")
    table = pq.read_table("out.parquet")
    crc = pa.array([value + 1 for value in table["crc"].to_pylist()], pa.int64())
    pq.write_table(table.set_column(table.schema.get_field_index("crc"), table.schema.field("crc"), crc), "out.parquet")
    done = cli("cache", "import", "out.parquet")
    assert done.code == 2
    assert "out.parquet" in done.error


def rows(folder: Path, texts: list[str], embeddings: list[list[float]]) -> Path:
    path = folder / "rows.jsonl"
    lines = [json.dumps({"text": t, "embedding": e}) for t, e in zip(texts, embeddings, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def made_by(cli: Cli, folder: Path, texts: list[str], *options: str) -> list[list[float]]:
    """The vectors of these texts, computed without touching the cache of the test."""
    (folder / "in.txt").write_text("\n".join(texts) + "\n")
    cli("embed", "in.txt", "-o", "made.npy", "--overwrite", *options)
    (folder / "home" / "semel.db").unlink()
    return np.load(folder / "made.npy").tolist()


def test_rows_of_texts_and_vectors_become_hits(cli: Cli, folder: Path) -> None:
    texts = [f"text {i}" for i in range(8)]
    source = rows(folder, texts, made_by(cli, folder, texts))
    done = cli("cache", "import", source, "--model", "fake")
    stored, present = (int(word) for word in done.out.split() if word.isdigit())
    assert (stored + present, present <= 3) == (8, True), "only those that were compared were computed"
    assert "8 hits" in cli("embed", "in.txt", "-o", "again.npy").err


def test_rows_of_another_model_are_refused(cli: Cli, folder: Path) -> None:
    texts = [f"text {i}" for i in range(8)]
    source = rows(folder, texts, made_by(cli, folder, texts, "--model", "prompted", "--prompt-name", "query"))
    done = cli("cache", "import", source)
    assert done.code == 2
    assert "'fake'" in done.error


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("none.jsonl", None, "there is no file none.jsonl"),
        ("bad.parquet", "not parquet", "bad.parquet"),
        ("rows.jsonl", '{"text": "a"}', "row 1: embedding"),
        ("rows.jsonl", '{"text": "a", "embedding": [1, 2]}', "row 1: embedding"),
    ],
)
def test_a_file_without_vectors_is_refused(cli: Cli, folder: Path, name: str, content: str | None, named: str) -> None:
    if content is not None:
        (folder / name).write_text(content)
    done = cli("cache", "import", name)
    assert done.code == 2
    assert named in done.error
