"""What semel stores is for its owner alone."""

import stat
from pathlib import Path

import pytest

from semel.db import Database
from semel.errors import BadInputError
from semel.private import private_file, private_folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_for_its_owner_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    private_folder(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    private_folder(shared)
    assert mode(shared) == 0o755


def test_a_file_that_exists_keeps_its_content(tmp_path: Path) -> None:
    file = tmp_path / "file"
    private_file(file)
    assert mode(file) == 0o600
    file.write_text("kept")
    private_file(file)
    assert file.read_text() == "kept"
    private_file(tmp_path / "missing" / "file")  # reported by whoever opens it


def test_the_database_and_what_lies_next_to_it_is_for_its_owner(tmp_path: Path) -> None:
    home = tmp_path / "home"
    db = Database(f"sqlite:///{home / 'semel.db'}")
    db.upgrade()
    with db.write() as conn:
        conn.exec_driver_sql("UPDATE jobs SET turn_at = 0")
        modes = {path.name: mode(path) for path in home.iterdir() if path.name.startswith("semel.db")}
    db.close()
    assert mode(home) == 0o700
    assert {name: modes[name] for name in ("semel.db", "semel.db-wal", "semel.db-shm")} == dict.fromkeys(
        ("semel.db", "semel.db-wal", "semel.db-shm"), 0o600
    )


def test_a_folder_that_cannot_be_made_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for folder in (Path("/proc/semel-home"), tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadInputError, match="set SEMEL_HOME to a folder that you may write"):
            private_folder(folder)
