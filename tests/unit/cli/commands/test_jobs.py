"""`semel jobs …` against the API in this process."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semel.values.text import ItemError
from tests.support.cli import Cli
from tests.support.service import Service

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def texts(folder: Path) -> list[str]:
    """Three texts that no other test uses, in in.txt."""
    made = [f"{os.urandom(4).hex()} {i}" for i in range(3)]
    (folder / "in.txt").write_text("\n".join(made) + "\n")
    return made


@pytest.fixture
def job(cli: Cli, texts: list[str]) -> str:
    """The id of a job that has completed."""
    return submitted(cli, "in.txt")


def submitted(cli: Cli, *arguments: str) -> str:
    done = cli("jobs", "submit", *arguments)
    assert done.code == 0, done.err
    return done.out.strip()


def embedded(server: Service, texts: list[str]) -> np.ndarray:
    """The vectors of these texts, as the API gives them."""
    answer = server.http.post("/v1/embeddings", json={"model": "fake", "input": texts})
    return np.array([one["embedding"] for one in answer.json()["data"]], np.float32)


def test_submit_prints_the_id_alone(cli: Cli, texts: list[str]) -> None:
    done = cli("jobs", "submit", "in.txt")
    assert done.out.startswith("job_")
    assert len(done.out.split()) == 1
    assert "sending texts" in done.err


def test_estimate_shows_hits_tokens_time_and_disk_and_submits_nothing(cli: Cli, texts: list[str], job: str) -> None:
    before = cli("jobs", "list").out
    with Path("in.txt").open("a") as file:
        file.write("a text that is new here\n\n")
    done = cli("jobs", "estimate", "in.txt")
    shown = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert shown["texts"] == "5: 4 distinct, 3 hits, 1 bad"
    assert shown["compute"] == "1 texts of about 8 tokens"
    assert shown["time"] == "about 0 s, after 0 s of other work"
    assert shown["disk"] == "about 214 bytes"
    assert cli("jobs", "list").out == before
    assert json.loads(cli("jobs", "estimate", "in.txt", "--json").out)["tokens"] == 8


def test_show_prints_what_became_of_each_text(cli: Cli, job: str) -> None:
    first, *lines = cli("jobs", "show", job).out.splitlines()
    assert first == f"{job}  completed"
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert shown["model"] == "fake (16 dimensions)"
    assert shown["texts"] == "3 of 3: 3 computed, 0 hits, 0 coalesced, 0 failed"
    assert "cut" not in shown
    assert shown["device"]
    assert shown["took"].endswith(" s")


def test_show_prints_json(cli: Cli, job: str) -> None:
    shown = cli("jobs", "show", job, "--json").json
    assert (shown["id"], shown["status"], shown["counts"]["computed"]) == (job, "completed", 3)


def test_the_options_of_a_job_reach_the_server(cli: Cli, server: Service, folder: Path) -> None:
    (folder / "long.txt").write_text("w " * 50 + "\n")
    job = submitted(cli, "long.txt", "--model", "fake", "--device", "cpu", "--no-truncate")
    assert "1 failed" in cli("jobs", "show", job).out
    queried = submitted(cli, "long.txt", "--model", "prompted", "--prompt-name", "query")
    assert server.services.stores.jobs.get(queried).prompt_name == "query"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--model", "nope"], "'nope'"),
        (["--prompt-name", "nope"], "nope"),
        (["--text-field", "body"], "'body'"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused(cli: Cli, folder: Path, options: list[str], named: str) -> None:
    (folder / "in.csv").write_text("id,text\n1,a\n")
    done = cli("jobs", "submit", "in.csv", *options)
    assert (done.code, done.out) == (2, "")
    assert named in done.error


def test_a_missing_file_is_named(cli: Cli) -> None:
    done = cli("jobs", "submit", "none.jsonl")
    assert done.code == 2
    assert "none.jsonl" in done.error


def test_a_row_comes_back_with_its_other_columns(cli: Cli, folder: Path) -> None:
    table = pa.table({"id": [7, 8], "body": ["row one", "row two"], "page": [3, 4]})
    pq.write_table(table, folder / "rows.parquet")
    job = submitted(cli, "rows.parquet", "--text-field", "body")
    cli("jobs", "results", job, "-o", "rows.ndjson")
    rows = [json.loads(line) for line in (folder / "rows.ndjson").read_text().splitlines()]
    assert [(row["id"], row["metadata"]) for row in rows] == [(7, {"page": 3}), (8, {"page": 4})]


def test_bad_rows_are_listed_and_fail_in_their_places(cli: Cli, folder: Path) -> None:
    (folder / "in.jsonl").write_text('{"text": "one"}\nnot json\n{"text": "", "id": "c"}\n{"text": "four"}\n')
    done = cli("jobs", "submit", "in.jsonl")
    assert done.code == 0, done.err
    assert "2 inputs cannot be read; they fail in their places:" in done.err
    assert "  in.jsonl:2: not JSON" in done.err
    assert "  in.jsonl:3: the text is empty" in done.err
    cli("jobs", "results", done.out.strip(), "-o", "out.jsonl")
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [row["outcome"] == "failed" for row in rows] == [False, True, True, False]
    assert [row.get("id") for row in rows] == [None, None, "c", None]


def test_a_bad_row_is_refused_when_all_must_be_good(cli: Cli, server: Service, folder: Path) -> None:
    before = server.services.stores.jobs.list_jobs(limit=100)
    (folder / "in.jsonl").write_text('{"text": "one"}\nnot json\n')
    refused = cli("jobs", "submit", "in.jsonl", "--strict")
    assert (refused.code, refused.out) == (2, "")
    assert "in.jsonl:2: not JSON" in refused.error
    assert server.services.stores.jobs.list_jobs(limit=100) == before


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        ([], "document"),
        (["--input-type", "query"], "query"),
        (["--input-type", "none"], ""),
        (["--prompt-name", "query"], "query"),
    ],
)
def test_texts_are_documents_unless_the_command_says_otherwise(
    cli: Cli, server: Service, texts: list[str], options: list[str], prompt: str
) -> None:
    job = submitted(cli, "in.txt", "--model", "prompted", *options)
    assert server.services.stores.jobs.get(job).prompt_name == prompt


def test_the_rows_of_a_folder_are_named_by_their_files(cli: Cli, folder: Path) -> None:
    (folder / "in").mkdir()
    (folder / "in" / "a.csv").write_text("id,text,page\n7,one,3\n")
    (folder / "in" / "b.html").write_text("two")
    job = submitted(cli, "in", "--include", "*.html")
    cli("jobs", "results", job, "-o", "out.jsonl")
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["a.csv#7", "b.html"]
    assert rows[0]["metadata"] == {"page": "3"}


def test_the_list_is_filtered(cli: Cli, job: str) -> None:
    assert job in cli("jobs", "list", "--limit", "5").out
    assert job in cli("jobs", "list", "--status", "completed", "--model", "fake").out
    assert cli("jobs", "list", "--status", "failed").out == "no jobs found\n"
    assert cli("jobs", "list", "--model", "prompted", "--status", "cancelled").out == "no jobs found\n"
    newest = cli("jobs", "list", "--limit", "1", "--json").json
    assert [one["id"] for one in newest] == [job]


def test_the_list_never_cuts_an_id(cli: Cli, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert job in cli("jobs", "list").out


@pytest.mark.parametrize("limit", ["0", "101", "many"])
def test_a_limit_outside_the_servers_is_a_usage_error(cli: Cli, limit: str) -> None:
    done = cli("jobs", "list", "--limit", limit)
    assert done.code == 2
    assert "--limit" in done.err


def test_an_unknown_status_is_refused_by_the_server(cli: Cli) -> None:
    done = cli("jobs", "list", "--status", "sleeping")
    assert done.code == 2
    assert "status" in done.error


@pytest.mark.parametrize("command", ["show", "wait", "cancel", "retry", "delete"])
def test_an_unknown_job_is_named(cli: Cli, command: str) -> None:
    done = cli("jobs", command, "job_x")
    assert done.code == 2
    assert "'job_x'" in done.error


def test_wait_shows_the_job_and_succeeds_when_it_completed(cli: Cli, job: str) -> None:
    done = cli("jobs", "wait", job)
    assert (done.code, f"{job}  completed" in done.out) == (0, True)
    assert "fake on cpu" in done.err


def test_wait_fails_when_the_job_did_not_complete(cli: Cli, server: Service, texts: list[str]) -> None:
    server.worker.paused = True
    job = submitted(cli, "in.txt")
    assert cli("jobs", "cancel", job).out == f"{job} is cancelled\n"
    done = cli("jobs", "wait", job)
    assert done.code == 1
    assert f"{job}  cancelled" in done.out


def test_wait_gives_up_after_its_timeout(cli: Cli, server: Service, texts: list[str]) -> None:
    server.worker.paused = True
    job = submitted(cli, "in.txt")
    done = cli("jobs", "wait", job, "--timeout", "0.01")
    assert done.code == 1
    assert job in done.error
    cli("jobs", "cancel", job)


def test_an_ended_job_cannot_be_cancelled(cli: Cli, job: str) -> None:
    done = cli("jobs", "cancel", job)
    assert done.code == 2
    assert "completed" in done.error


def test_retry_runs_a_cancelled_job_to_its_end(cli: Cli, server: Service, texts: list[str]) -> None:
    server.worker.paused = True
    job = submitted(cli, "in.txt")
    cli("jobs", "cancel", job)
    server.worker.paused = False
    assert cli("jobs", "retry", job).out.startswith(f"{job} is ")
    assert cli("jobs", "wait", job).code == 0
    assert "3 computed" in cli("jobs", "show", job).out


def test_a_deleted_job_is_gone_and_its_vectors_stay(cli: Cli, job: str) -> None:
    assert cli("jobs", "delete", job).code == 0
    assert cli("jobs", "show", job).code == 2
    again = submitted(cli, "in.txt")
    assert "3 hits" in cli("jobs", "show", again).out


@pytest.mark.parametrize("name", ["out.npy", "out.parquet", "out.jsonl", "out.ndjson", "out.arrow"])
def test_results_come_in_the_format_of_the_file(
    cli: Cli, server: Service, folder: Path, texts: list[str], job: str, name: str
) -> None:
    done = cli("jobs", "results", job, "-o", name)
    assert (done.code, done.err) == (0, f"{name}\n")
    path = folder / name
    if name.endswith(".npy"):
        rows = np.load(path)
    elif name.endswith((".ndjson", ".jsonl")):
        rows = np.array([json.loads(line)["embedding"] for line in path.read_text().splitlines()], np.float32)
    else:
        table = pq.read_table(path) if name.endswith(".parquet") else pa.ipc.open_stream(path.read_bytes()).read_all()
        rows = np.array(table["embedding"].to_pylist(), np.float32)
    np.testing.assert_array_equal(rows, embedded(server, texts))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.xlsx", "out.xlsx: unknown output format '.xlsx' (known: .npy, .parquet, .ndjson, .jsonl, .arrow)"),
        ("out", "out: unknown output format ''"),
        ("no/such/out.npy", "no/such does not exist; create it before writing out.npy"),
        ("in.txt.npy", "in.txt.npy exists; use --overwrite to replace it"),
    ],
)
def test_results_that_cannot_be_written_are_refused_first(
    cli: Cli, folder: Path, job: str, name: str, message: str
) -> None:
    (folder / "in.txt.npy").write_text("mine")
    done = cli("jobs", "results", job, "-o", name)
    assert done.code == 2
    assert message in done.error
    assert (folder / "in.txt.npy").read_text() == "mine"


def test_overwrite_replaces_the_file(cli: Cli, folder: Path, job: str) -> None:
    (folder / "out.npy").write_text("mine")
    assert cli("jobs", "results", job, "-o", "out.npy", "--overwrite").code == 0
    assert np.load(folder / "out.npy").shape == (3, 16)


def test_results_that_the_server_refuses_leave_no_file(cli: Cli, folder: Path) -> None:
    (folder / "bad.txt").write_text("good\na poison\n")
    job = submitted(cli, "bad.txt")
    done = cli("jobs", "results", job, "-o", "out.npy")
    assert done.code == 2
    assert "npy" in done.error
    assert not list(folder.glob("out*"))


def test_the_reason_of_a_failed_job_is_shown(cli: Cli, server: Service, texts: list[str]) -> None:
    server.worker.paused = True
    job = submitted(cli, "in.txt")
    server.services.stores.jobs.fail(job, ItemError("no_worker", "no worker serves fake"))
    assert "  error    no worker serves fake" in cli("jobs", "show", job).out.splitlines()
