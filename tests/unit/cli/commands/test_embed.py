"""`semel embed`: options, messages, exit codes; in this process and through the API in this process."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from semel.cli.work import embedding
from tests.support.cli import Cli

TEXTS = ["one", "two words", "one", "three words here"]


@pytest.fixture
def source(folder: Path) -> Path:
    """A file of four texts, one of them twice."""
    path = folder / "in.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


def test_the_rows_are_in_order_and_equal_texts_have_equal_vectors(cli: Cli, folder: Path, source: Path) -> None:
    done = cli("embed", source, "-o", "out.npy")
    assert done.code == 0, done.err
    rows = np.load(folder / "out.npy")
    assert (rows.shape, rows.dtype) == ((4, 16), np.float32)
    assert np.array_equal(rows[0], rows[2])
    assert len(np.unique(rows, axis=0)) == 3


def test_the_summary_counts_what_became_of_the_texts(cli: Cli, source: Path) -> None:
    first = cli("embed", source, "-o", "out.npy").err.splitlines()[-1]
    assert first.startswith("4 texts in ")
    assert first.endswith(": 3 computed, 0 hits, 1 coalesced → out.npy")
    again = cli("embed", source, "-o", "again.npy").err.splitlines()[-1]
    assert again.endswith(": 0 computed, 4 hits, 0 coalesced → again.npy")


def test_nothing_is_written_to_stdout(cli: Cli, source: Path) -> None:
    assert cli("embed", source, "-o", "out.npy").out == ""


@pytest.mark.parametrize("where", ["local", "server"])
def test_here_and_on_a_server_the_file_is_the_same(
    cli: Cli, folder: Path, source: Path, where: str, request: pytest.FixtureRequest
) -> None:
    if where == "server":
        request.getfixturevalue("server")
    options = ["--url", "http://elsewhere"] if where == "server" else ["--local"]
    for name in ("out.npy", "out.parquet", "out.jsonl"):
        assert cli("embed", source, "-o", name, *options).code == 0
    rows = np.load(folder / "out.npy")
    table = pq.read_table(folder / "out.parquet")
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), rows)
    assert np.array_equal(np.array([line["embedding"] for line in lines], np.float32), rows)
    assert [line["text"] for line in lines] == table["text"].to_pylist() == TEXTS
    assert sorted(path.name for path in folder.glob("out*")) == ["out.jsonl", "out.npy", "out.parquet"]


def test_local_wins_over_the_url_of_the_environment(cli: Cli, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMEL_URL", "http://127.0.0.1:9")
    assert cli("embed", source, "-o", "out.npy", "--local").code == 0
    done = cli("embed", source, "-o", "other.npy")
    assert done.code == 1
    assert "http://127.0.0.1:9" in done.error


def test_a_prompt_goes_before_each_text(cli: Cli, folder: Path, source: Path) -> None:
    cli("embed", source, "-o", "queries.npy", "--model", "prompted", "--prompt-name", "query")
    (folder / "spelled.txt").write_text("".join(f"find {text}\n" for text in TEXTS))
    cli("embed", "spelled.txt", "-o", "spelled.npy", "--model", "prompted", "--input-type", "none")
    assert np.array_equal(np.load(folder / "queries.npy"), np.load(folder / "spelled.npy"))


@pytest.mark.parametrize("where", ["local", "server"])
@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        ([], "text "),
        (["--input-type", "document"], "text "),
        (["--input-type", "query"], "find "),
        (["--input-type", "none"], ""),
    ],
)
def test_texts_are_documents_unless_the_command_says_otherwise(
    cli: Cli, folder: Path, source: Path, options: list[str], prompt: str, where: str, request: pytest.FixtureRequest
) -> None:
    (folder / "spelled.txt").write_text("".join(f"{prompt}{text}\n" for text in TEXTS))
    cli("embed", "spelled.txt", "-o", "spelled.npy", "--model", "prompted", "--input-type", "none")
    if where == "server":
        request.getfixturevalue("server")
        options = [*options, "--url", "http://elsewhere"]
    done = cli("embed", source, "-o", "out.npy", "--model", "prompted", *options)
    assert done.code == 0, done.err
    assert np.array_equal(np.load(folder / "out.npy"), np.load(folder / "spelled.npy"))


@pytest.mark.parametrize("where", ["local", "server"])
def test_an_unknown_kind_of_text_is_refused(cli: Cli, source: Path, where: str, request: pytest.FixtureRequest) -> None:
    options = []
    if where == "server":
        request.getfixturevalue("server")
        options = ["--url", "http://elsewhere"]
    done = cli("embed", source, "-o", "out.npy", "--model", "prompted", "--input-type", "poem", *options)
    assert done.code == 2
    assert "document" in done.error
    assert "none" in done.error


def test_another_field_can_hold_the_text(cli: Cli, folder: Path) -> None:
    (folder / "in.jsonl").write_text('{"id": "a", "body": "one"}\n{"id": "b", "body": "two"}\n')
    assert cli("embed", "in.jsonl", "-o", "out.jsonl", "--text-field", "body").code == 0
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [(line["id"], line["text"]) for line in lines] == [("a", "one"), ("b", "two")]


def test_texts_above_the_limit_are_truncated_and_counted(cli: Cli, folder: Path) -> None:
    (folder / "long.txt").write_text("w " * 50 + "\nshort\n")
    done = cli("embed", "long.txt", "-o", "out.npy")
    assert "1 texts (50.0 %) were longer than the model's limit: about 19% of all tokens are not in" in done.err
    assert np.load(folder / "out.npy").shape == (2, 16)


def test_no_truncate_lets_them_fail(cli: Cli, folder: Path) -> None:
    (folder / "long.txt").write_text("w " * 50 + "\nshort\n")
    done = cli("embed", "long.txt", "-o", "out.parquet", "--no-truncate")
    assert "1 inputs have no vector:" in done.err
    assert "long.txt:1: " in done.err
    refused = cli("embed", "long.txt", "-o", "out.npy", "--no-truncate")
    assert refused.code == 2
    assert ".npy cannot mark a missing row; write .parquet or .jsonl" in refused.error
    assert not (folder / "out.npy").exists()


@pytest.mark.parametrize("where", ["local", "server"])
@pytest.mark.parametrize("skip_bad", [[], ["--skip-bad"]])
def test_bad_inputs_keep_their_places(
    cli: Cli, folder: Path, where: str, skip_bad: list[str], request: pytest.FixtureRequest
) -> None:
    if where == "server":
        request.getfixturevalue("server")
    options = ["--url", "http://elsewhere"] if where == "server" else []
    (folder / "in.jsonl").write_text('{"text": "one"}\nnot json\n{"text": "a poison"}\n{"text": "two"}\n{"text": ""}\n')
    done = cli("embed", "in.jsonl", "-o", "out.parquet", *skip_bad, *options)
    assert done.code == 0, done.err
    assert "3 inputs have no vector:" in done.err
    assert all(f"in.jsonl:{number}: " in done.err for number in (2, 3, 5))
    table = pq.read_table(folder / "out.parquet")
    assert [vector is not None for vector in table["embedding"].to_pylist()] == [True, False, False, True, False]
    assert [error is None for error in table["error"].to_pylist()] == [True, False, False, True, False]


def test_the_list_of_bad_inputs_has_an_end(cli: Cli, folder: Path) -> None:
    (folder / "in.jsonl").write_text('{"text": "one"}\n' + "oops\n" * 25)
    lines = cli("embed", "in.jsonl", "-o", "out.parquet").err.splitlines()
    assert len([line for line in lines if line.startswith("  in.jsonl:")]) == embedding._LISTED
    assert lines[-1] == "  … and 5 more"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "out.xlsx"], "out.xlsx: unknown output format '.xlsx' (known: .npy, .jsonl, .parquet)"),
        (["-o", "out"], "out: unknown output format ''"),
        (["-o", "no/such/out.npy"], "no/such does not exist; create it before writing out.npy"),
        (["-o", "mine.npy"], "mine.npy exists; use --overwrite to replace it"),
        (["-o", "out.npy", "--local", "--url", "http://x"], "--local and --url cannot be used together"),
        (["-o", "out.npy", "--model", "nope"], "'nope'"),
        (["-o", "out.npy", "--prompt-name", "query"], "model 'fake' has no prompt 'query' (it has: none)"),
        (
            ["-o", "out.npy", "--model", "prompted", "--prompt-name", "q"],
            "model 'prompted' has no prompt 'q' (it has: document, query)",
        ),
        (["-o", "out.npy", "--model", "reranker"], "'reranker'"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_one_line(
    cli: Cli, folder: Path, source: Path, options: list[str], message: str
) -> None:
    (folder / "mine.npy").write_text("mine")
    done = cli("embed", source, *options)
    assert done.code == 2
    assert message in done.error
    assert not list(folder.glob("out*"))
    assert (folder / "mine.npy").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("none.txt", None, "none.txt"),
        ("in.pdf", "x", "in.pdf"),
        ("in.txt", "", "in.txt contains no texts"),
        ("in.txt", "a\n\nb\n", "in.txt:2 has no vector (the text is empty)"),
        ("in.csv", "a,b\n1,2\n", "'text'"),
        ("in.txt", "good\na poison\n", "in.txt:2 has no vector"),
    ],
)
def test_an_input_that_cannot_be_read_leaves_no_output(
    cli: Cli, folder: Path, name: str, content: str | None, named: str
) -> None:
    if content is not None:
        (folder / name).write_text(content)
    done = cli("embed", name, "-o", "out.npy")
    assert done.code == 2
    assert named in done.error
    assert not list(folder.glob("out*"))


@pytest.mark.parametrize("where", ["local", "server"])
@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("in.txt", "a\n\nb\n", "in.txt:2: the text is empty"),
        ("in.jsonl", '{"text": "a"}\n{oops\n', "in.jsonl:2: not JSON"),
        ("in.csv", "id,text\n1,a,b\n", "in.csv:2: 3 cells under 2 columns"),
    ],
)
def test_a_bad_input_is_refused_when_all_must_be_good(
    cli: Cli, folder: Path, name: str, content: str, named: str, where: str, request: pytest.FixtureRequest
) -> None:
    (folder / name).write_text(content)
    options = []
    if where == "server":
        request.getfixturevalue("server")
        options = ["--url", "http://elsewhere"]
    done = cli("embed", name, "-o", "out.parquet", "--strict", *options)
    assert done.code == 2
    assert named in done.error
    assert "(without --strict, such inputs fail in their places)" in done.error
    assert not list(folder.glob("out*"))


def test_files_of_a_folder_that_are_not_read_are_counted_and_can_be_included(cli: Cli, folder: Path) -> None:
    (folder / "in").mkdir()
    for name in ("a.md", "b.html", "c.pdf", ".hidden.html"):
        (folder / "in" / name).write_text(f"text of {name}")
    done = cli("embed", "in", "-o", "out.jsonl")
    assert "2 files of the folder were not read: 1 .html, 1 .pdf (--include '*.html' reads such files" in done.err
    again = cli("embed", "in", "-o", "all.jsonl", "--include", "*.html", "--include", "*.pdf")
    assert "were not read" not in again.err
    lines = [json.loads(line) for line in (folder / "all.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["a.md", "b.html", "c.pdf"]


def test_overwrite_replaces_an_output(cli: Cli, folder: Path, source: Path) -> None:
    (folder / "out.npy").write_text("mine")
    assert cli("embed", source, "-o", "out.npy", "--overwrite").code == 0
    assert np.load(folder / "out.npy").shape == (4, 16)


def test_an_old_output_survives_a_run_that_fails(cli: Cli, folder: Path) -> None:
    (folder / "out.npy").write_text("mine")
    (folder / "bad.txt").write_text("a poison\n")
    assert cli("embed", "bad.txt", "-o", "out.npy", "--overwrite").code == 2
    assert (folder / "out.npy").read_text() == "mine"


def test_an_unknown_device_is_named(cli: Cli, folder: Path, source: Path) -> None:
    toml = (folder / "semel.toml").read_text() + '[models.own]\nsource = "fake:?dim=16"\nsource_mlx = "fake:?dim=8"\n'
    (folder / "semel.toml").write_text(toml)
    done = cli("embed", source, "-o", "out.npy", "--device", "tpu")
    assert done.code == 2
    assert "'tpu'" in done.error
