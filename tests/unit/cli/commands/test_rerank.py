"""`semel rerank` against the API in this process."""

from pathlib import Path

import pytest

from tests.support.cli import Cli

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def source(folder: Path) -> Path:
    """Documents that share none, one or both words of the query `two words`."""
    path = folder / "in.txt"
    path.write_text("nothing\ntwo words\nsome words\n")
    return path


def test_the_most_relevant_text_comes_first(cli: Cli, source: Path) -> None:
    done = cli("rerank", "two words", source, "--model", "reranker")
    assert [line.split(maxsplit=2) for line in done.out.splitlines()] == [
        ["1.0000", "1", "two words"],
        ["0.5000", "2", "some words"],
        ["0.0000", "0", "nothing"],
    ]


def test_top_n_bounds_the_list(cli: Cli, source: Path) -> None:
    rows = cli("rerank", "two words", source, "--model", "reranker", "--top-n", "2", "--json").json
    assert [(row["index"], row["score"], row["text"]) for row in rows] == [
        (1, 1.0, "two words"),
        (2, 0.5, "some words"),
    ]


def test_an_embedding_model_ranks_too(cli: Cli, source: Path) -> None:
    best, *_ = cli("rerank", "two words", source, "--json").json
    assert (best["index"], best["text"]) == (1, "two words")


def test_only_the_first_line_of_a_long_text_is_printed(cli: Cli, folder: Path) -> None:
    (folder / "docs").mkdir()
    (folder / "docs" / "a.md").write_text("\n# A title\n" + "a long text " * 40)
    assert cli("rerank", "title", "docs").out.split(maxsplit=2)[2] == "# A title\n"


def test_numbers_are_positions_in_the_input_also_after_texts_that_cannot_be_read(cli: Cli, folder: Path) -> None:
    (folder / "in.jsonl").write_text('{"text": ""}\n{"text": "one"}\n{"text": "two words"}\n')
    done = cli("rerank", "two words", "in.jsonl", "--model", "reranker", "--json")
    assert [row["index"] for row in done.json] == [2, 1]
    assert "1 inputs cannot be read; the printed numbers are positions in the input:" in done.err
    assert "  in.jsonl:1: " in done.err
    refused = cli("rerank", "two words", "in.jsonl", "--model", "reranker", "--strict")
    assert (refused.code, refused.out) == (2, "")
    assert "in.jsonl:1: the text is empty" in refused.error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["", "in.txt"], "query"),
        (["two words", "none.txt"], "none.txt"),
        (["two words", "in.txt", "--model", "nope"], "'nope'"),
        (["a poison", "in.txt", "--model", "reranker"], "poison"),
    ],
)
def test_what_cannot_be_ranked_is_an_error(cli: Cli, source: Path, arguments: list[str], named: str) -> None:
    done = cli("rerank", *arguments)
    assert (done.code, done.out) == (2, "")
    assert named in done.error


def test_top_n_is_at_least_one(cli: Cli, source: Path) -> None:
    done = cli("rerank", "two words", source, "--top-n", "0")
    assert (done.code, "--top-n" in done.err) == (2, True)
