"""The file of keys: options of a line, and changes while the server runs."""

import os
import time
from pathlib import Path

import pytest

from semel.api.edge.keys import ApiKey, KeyRing, Scope, file_line, find_key, load_keys
from semel.errors import BadInputError
from semel.settings import load_settings


def keys_of(tmp_path: Path, *lines: str) -> tuple[ApiKey, ...]:
    (tmp_path / "keys").write_text("\n".join(lines))
    return load_keys(load_settings(api_keys_file=tmp_path / "keys"))


def test_a_line_may_have_a_name_a_namespace_a_cache_and_an_end(tmp_path: Path) -> None:
    line = file_line("sk", "submit", ["name=nightly-index", "namespace=red", "cache=private", "expires=2031-02-03"])
    (key,) = keys_of(tmp_path, line)
    assert (key.scope, key.share, key.name, key.namespace, key.private) == (
        Scope.SUBMIT, 1.0, "nightly-index", "red", True
    )  # fmt: skip
    assert time.gmtime(key.expires_at)[:3] == (2031, 2, 3)
    assert (key.submitter.namespace, key.submitter.cache_namespace) == ("red", "red")
    assert key.shown == "nightly-index"


def test_a_share_stands_before_the_options(tmp_path: Path) -> None:
    (key,) = keys_of(tmp_path, f"{file_line('sk', 'submit')} 2.5 namespace=red")
    assert (key.share, key.namespace, key.private) == (2.5, "red", False)
    assert key.submitter.cache_namespace == ""


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("namspace=red", "'namspace' is no option"),
        ("namespace=", "'namespace' is no option, or its value cannot be used"),
        ("namespace=a/b", "cannot be used"),
        ("cache=mine namespace=a", "'cache' is no option, or its value"),
        ("cache=private", "cache=private needs a namespace"),
        ("expires=tomorrow", "expires must be a date, such as expires=2027-01-31"),
    ],
)
def test_a_wrong_option_is_refused_with_its_line(tmp_path: Path, options: str, problem: str) -> None:
    with pytest.raises(BadInputError, match=rf"keys, line 1: .*{problem}"):
        keys_of(tmp_path, f"{file_line('sk', 'submit')} {options}")


def test_a_namespace_has_one_cache(tmp_path: Path) -> None:
    private, shared = (file_line(key, "submit", ["namespace=red"]) for key in "ab")
    with pytest.raises(BadInputError, match="some keys of the namespace 'red' have cache=private and others do not"):
        keys_of(tmp_path, f"{private} cache=private", shared)


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semel.api.edge.keys._LOOK_S", -1.0)
    file = tmp_path / "keys"
    file.write_text(file_line("old", "read"))
    ring = KeyRing(load_settings(api_keys_file=file))

    def change(text: str, at: float) -> None:
        file.write_text(text)
        os.utime(file, (at, at))

    change(file_line("new", "read", ["namespace=red"]), 1000.0)
    assert find_key(ring.now(), "old") is None
    assert find_key(ring.now(), "new") is not None
    assert ring.has_namespaces
    change("no key", 2000.0)
    assert find_key(ring.now(), "new") is not None
    file.unlink()
    assert find_key(ring.now(), "new") is not None
    change(file_line("newest", "read"), 3000.0)
    assert find_key(ring.now(), "newest") is not None
    assert not ring.has_namespaces
