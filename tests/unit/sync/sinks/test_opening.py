"""Addresses of sinks."""

from pathlib import Path

import pytest

from semel.errors import BadInputError, UnavailableError
from semel.sync.sinks import index_name, open_sink, shown_sink
from semel.sync.sources import shown_source


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("parquet:./vectors/handbook", "handbook"),
        ("lancedb:/data/index/handbook", "handbook"),
        ("qdrant://host:6333/handbook", "handbook"),
        ("qdrant:folder/handbook", "handbook"),
        ("postgresql://u:p@host/db?table=handbook&sslmode=require", "handbook"),
        ("postgresql://host/db?table=search.handbook", "handbook"),
    ],
)
def test_the_name_of_an_index(address: str, name: str) -> None:
    assert index_name(address) == name


def test_an_address_is_shown_without_its_password_and_with_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_sink("lancedb:./index/x") == f"lancedb:{tmp_path}/index/x"
    assert shown_sink("postgresql://u:secret@host/db?table=x") == "postgresql://u:***@host/db?table=x"
    assert shown_sink("qdrant://host/x") == "qdrant://host/x"
    for password in ("pa/ss", "pa#ss", "p?a@b:c"):
        assert shown_sink(f"postgresql://u:{password}@host/db?table=x") == "postgresql://u:***@host/db?table=x"
    in_query = "postgresql://host/db?user=u&password=secret&table=x"
    assert shown_sink(in_query) == "postgresql://host/db?user=u&password=***&table=x"
    assert shown_source("ftp://u:secret@host/docs") == "ftp://u:***@host/docs"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("chroma:./x", "is no sink; write parquet:FOLDER/NAME"),
        ("handbook", "is no sink"),
        ("postgresql://host/db", "needs the name of a table"),
        ("parquet:x/a b", "an index cannot be named 'a b'"),
        ("postgresql://host/db?table=x;drop", "an index cannot be named"),
        ("postgresql://host/db?table=x&type=bit", "must be halfvec or vector, not 'bit'"),
        ("qdrant://host", "an index cannot be named ''"),
    ],
)
def test_what_is_no_address_is_refused(address: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        open_sink(address)


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    with pytest.raises(UnavailableError) as error:
        open_sink("postgresql://u:secret@127.0.0.1:1/db?table=x")
    assert "cannot be reached" in str(error.value)
    assert "secret" not in str(error.value)
    sink = open_sink("qdrant://127.0.0.1:1/x")
    with pytest.raises(UnavailableError, match="Qdrant does not answer"):
        sink.serving()
