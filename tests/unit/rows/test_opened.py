"""Compressed files: the same rows as the file itself, and an error for one that is damaged or holds too much."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from semel.errors import BadInputError
from semel.rows import has_known_format, read_records

PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,  # as the command zstd does
}
KINDS = pytest.mark.parametrize("kind", PACKED)

MANY = b"".join(b'{"text": "row %d"}\n' % i for i in range(20_000))


def texts(path: Path, *, max_bytes: int | None = None) -> list[str | None]:
    return [
        record.fields.get("text") for record in read_records(path, ["text"], max_text_bytes=1000, max_bytes=max_bytes)
    ]


@KINDS
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.txt", b"one\ntwo\n"),
        ("in.jsonl", b'{"text": "one"}\n"two"\n'),
        ("in.json", b'["one", {"text": "two"}]'),
        ("in.csv", b"text,n\none,1\ntwo,2\n"),
        ("in.TSV", b"text\tn\none\t1\ntwo\t2\n"),
    ],
)
def test_a_compressed_file_has_the_rows_of_the_file(tmp_path: Path, kind: str, name: str, content: bytes) -> None:
    path = tmp_path / (name + kind.upper())
    path.write_bytes(PACKED[kind](content))
    assert texts(path) == ["one", "two"]


@KINDS
def test_parts_that_were_compressed_one_by_one_are_all_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"in.txt{kind}"
    path.write_bytes(PACKED[kind](b"one\n") + PACKED[kind](b"two\n"))
    assert texts(path) == ["one", "two"]


@KINDS
@pytest.mark.parametrize("kept", [0.01, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_an_error_and_not_its_end(tmp_path: Path, kind: str, kept: float) -> None:
    whole = PACKED[kind](MANY)
    path = tmp_path / f"in.jsonl{kind}"
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(BadInputError, match=rf"in\.jsonl\{kind}: the compressed file is damaged"):
        texts(path)


@KINDS
def test_a_file_that_is_not_compressed_is_an_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"in.txt{kind}"
    path.write_bytes(b"just a text")
    with pytest.raises(BadInputError, match=rf"in\.txt\{kind}: the compressed file is damaged"):
        texts(path)


@KINDS
def test_a_file_with_damaged_bytes_is_an_error(tmp_path: Path, kind: str) -> None:
    content = bytearray(PACKED[kind](MANY))
    content[1000:1100] = b"\xff" * 100
    path = tmp_path / f"in.jsonl{kind}"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=rf"in\.jsonl\{kind}: the compressed file is damaged"):
        texts(path)


@KINDS
def test_a_file_that_holds_more_than_the_limit_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"in.jsonl{kind}"
    path.write_bytes(PACKED[kind](MANY))
    assert path.stat().st_size < len(MANY) // 2
    assert len(texts(path, max_bytes=len(MANY))) == 20_000
    message = rf"in\.jsonl\{kind}: it holds more than the server takes \(SEMEL_MAX_FILE_BYTES\)"
    with pytest.raises(BadInputError, match=message):
        texts(path, max_bytes=len(MANY) - 1)


def test_parquet_is_not_compressed_again(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["one"]}), path)
    assert texts(path) == ["one"]
    assert not has_known_format(tmp_path / "in.parquet.gz")
