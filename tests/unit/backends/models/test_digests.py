"""Digests of files: by content, remembered until a file changes."""

import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from semel.backends.models.digests import Digests
from tests.support.model_files import write_files


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    root = write_files(tmp_path / "model", {"a.bin": b"first", "sub/b.bin": b"second"})
    return [root / "sub" / "b.bin", root / "a.bin"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "model"


def count_hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are hashed from now on."""
    hashed: list[str] = []
    real = hashlib.file_digest

    def counted(stream: object, name: str) -> object:
        hashed.append(Path(stream.name).name)  # type: ignore[attr-defined]
        return real(stream, name)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return hashed


def test_the_order_of_the_files_does_not_matter(files: list[Path], root: Path) -> None:
    digests = Digests(None)
    assert digests.of_files(root, files) == digests.of_files(root, files[::-1])


def test_content_and_name_change_the_digest(files: list[Path], root: Path) -> None:
    digests = Digests(None)
    before = digests.of_files(root, files)
    files[0].write_bytes(b"changed")
    changed = digests.of_files(root, files)
    renamed = files[0].rename(root / "sub" / "c.bin")
    assert len({before, changed, digests.of_files(root, [renamed, files[1]])}) == 3


def test_a_copy_elsewhere_has_the_same_digest(files: list[Path], root: Path, tmp_path: Path) -> None:
    copy = write_files(tmp_path / "copy", {"a.bin": b"first", "sub/b.bin": b"second"})
    same = Digests(None).of_files(copy, [copy / "a.bin", copy / "sub" / "b.bin"])
    assert same == Digests(None).of_files(root, files)


def test_no_files_have_a_digest_too(root: Path) -> None:
    assert Digests(None).of_files(root, []) == hashlib.sha256().hexdigest()


def test_another_process_reads_the_digest_from_the_memo(
    files: list[Path], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memo = tmp_path / "deep" / "digests.json"
    hashed = count_hashes(monkeypatch)
    first = Digests(memo).of_files(root, files)
    assert sorted(hashed) == ["a.bin", "b.bin"]
    assert Digests(memo).of_files(root, files) == first
    assert len(hashed) == 2


def test_only_the_file_that_changed_is_hashed_again(
    files: list[Path], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memo = tmp_path / "digests.json"
    before = Digests(memo).of_files(root, files)
    hashed = count_hashes(monkeypatch)
    files[0].write_bytes(b"sECOND")  # the same size
    assert Digests(memo).of_files(root, files) != before
    assert hashed == ["b.bin"]


def test_a_file_that_was_swapped_with_its_times_is_hashed_again(files: list[Path], root: Path, tmp_path: Path) -> None:
    memo = tmp_path / "digests.json"
    before = Digests(memo).of_files(root, files)
    times = files[0].stat()
    other = root / "sub" / "other"
    other.write_bytes(b"sECOND")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(files[0])
    assert Digests(memo).of_files(root, files) != before


@pytest.mark.parametrize("damaged", ["", '{"a', "not JSON"])
def test_a_damaged_memo_is_written_again(files: list[Path], root: Path, tmp_path: Path, damaged: str) -> None:
    memo = tmp_path / "digests.json"
    expected = Digests(None).of_files(root, files)
    memo.write_text(damaged)
    assert Digests(memo).of_files(root, files) == expected
    assert len(json.loads(memo.read_text())) == 2


def test_a_memo_that_cannot_be_written_costs_only_time(
    files: list[Path], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    digests = Digests(tmp_path / "taken" / "digests.json")
    assert digests.of_files(root, files) == Digests(None).of_files(root, files)
    assert "cannot remember the digests" in capsys.readouterr().out


def test_models_that_are_hashed_at_the_same_time_are_all_remembered(tmp_path: Path) -> None:
    roots = [write_files(tmp_path / f"model{i}", {"a.bin": f"weights {i}".encode()}) for i in range(8)]
    digests = Digests(tmp_path / "memo.json")
    threads = [threading.Thread(target=digests.of_files, args=(root, [root / "a.bin"])) for root in roots]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads((tmp_path / "memo.json").read_text())) == 8
