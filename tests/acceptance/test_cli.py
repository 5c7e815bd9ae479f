"""`semel embed` and other commands, as a user types them, locally and through a server."""

import datetime
import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.processes import Processes, processes, stored_vectors, wait_until

TEXTS = ["one", "two words", "one", "three words here", "émigré 漢字"]
WHERE = pytest.mark.parametrize("where", ["local", "server"])


def arguments(semel: Processes, where: str) -> list[str]:
    return ["--url", semel.url] if where == "server" else ["--local"]


def _txt(folder: Path) -> Path:
    path = folder / "in.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


def _jsonl(folder: Path) -> Path:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(TEXTS)))
    return path


def _csv(folder: Path) -> Path:
    path = folder / "in.csv"
    path.write_text("id,text\n" + "".join(f"{i},{t}\n" for i, t in enumerate(TEXTS)), encoding="utf-8")
    return path


def _parquet(folder: Path) -> Path:
    path = folder / "in.parquet"
    pq.write_table(pa.table({"id": range(len(TEXTS)), "text": TEXTS}), path)
    return path


def _json(folder: Path) -> Path:
    path = folder / "in.json"
    path.write_text(json.dumps([{"id": i, "text": t} for i, t in enumerate(TEXTS)]))
    return path


def _gz(folder: Path) -> Path:
    path = folder / "in.tsv.gz"
    path.write_bytes(gzip.compress(("id\ttext\n" + "".join(f"{i}\t{t}\n" for i, t in enumerate(TEXTS))).encode()))
    return path


def _folder(folder: Path) -> Path:
    path = folder / "in"
    (path / "deep").mkdir(parents=True)
    for i, text in enumerate(TEXTS):
        (path / "deep" / f"{i}.txt").write_text(text, encoding="utf-8")
    return path


@WHERE
@pytest.mark.parametrize("make", [_txt, _jsonl, _json, _csv, _gz, _parquet, _folder])
def test_every_input_gives_its_rows_in_order(
    semel: Processes, tmp_path: Path, where: str, make: Callable[[Path], Path]
) -> None:
    out = tmp_path / "out.npy"
    semel.semel("embed", str(make(tmp_path)), "-o", str(out), *arguments(semel, where))
    assert np.array_equal(np.load(out), semel.client.embed(TEXTS, model="fake"))


@WHERE
def test_every_output_holds_the_same_vectors(semel: Processes, tmp_path: Path, where: str) -> None:
    source = str(_jsonl(tmp_path))
    for name in ("out.npy", "out.parquet", "out.jsonl"):
        semel.semel("embed", source, "-o", str(tmp_path / name), *arguments(semel, where))
    rows = np.load(tmp_path / "out.npy")
    table = pq.read_table(tmp_path / "out.parquet")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert np.array_equal(np.stack(table["embedding"].to_numpy()), rows)
    assert np.array_equal(np.array([line["embedding"] for line in lines], np.float32), rows)
    assert table["text"].to_pylist() == [line["text"] for line in lines] == TEXTS
    assert table["id"].to_pylist() == [str(line["id"]) for line in lines]
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob("*.job"))


@WHERE
def test_unreadable_and_failed_inputs_keep_their_places(semel: Processes, tmp_path: Path, where: str) -> None:
    source = tmp_path / "in.jsonl"
    lines = [
        b'{"text": "one"}',
        b"not json",
        b'{"text": ""}',
        b'{"other": 1}',
        b'{"text": "a poison"}',
        b'{"text": "\xff"}',
    ]
    source.write_bytes(b"\n".join([*lines, b'{"text": "two words"}', b'{"text": 5}']) + b"\n")
    out = tmp_path / "out.parquet"
    done = semel.semel("embed", str(source), "-o", str(out), *arguments(semel, where))
    table = pq.read_table(out)
    assert table["index"].to_pylist() == list(range(8))
    assert [e is not None for e in table["embedding"].to_pylist()] == [i in (0, 6) for i in range(8)]
    vectors = [table["embedding"][i].as_py() for i in (0, 6)]
    assert np.array_equal(np.array(vectors, np.float32), semel.client.embed(["one", "two words"], model="fake"))
    for number, why in ((2, "not JSON"), (3, "empty"), (4, "no field 'text'"), (6, "not UTF-8"), (8, "not a string")):
        assert f"in.jsonl:{number}: " in done.stderr
        assert why in done.stderr
    assert "6 inputs have no vector" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("in.txt", "a\n\nb\n", ["--strict"], "in.txt:2: the text is empty (without --strict, such inputs fail in"),
        ("in.txt", "a\n\nb\n", [], "in.txt:2 has no vector (the text is empty), and .npy cannot mark a missing row"),
        ("in.txt", b"a\nb\xff\n", ["--strict"], "in.txt:2: not UTF-8 (byte 0xff at 1)"),
        ("in.jsonl", '{"text": "a"}\n{oops\n', ["--strict"], "in.jsonl:2: not JSON"),
        ("in.jsonl", '{"text": "a"}\n{"txt": "b"}\n', ["--strict"], "in.jsonl:2: no field 'text'"),
        ("in.jsonl", '{"text": "a\\ud800"}\n', ["--strict"], "in.jsonl:1: the text contains a lone surrogate"),
        ("in.csv", "a,b\n1,2\n", [], "no column 'text' (columns: a, b)"),
        ("in.parquet", "no", [], "not a Parquet file"),
        ("in.txt", "", [], "contains no texts"),
        ("in.pdf", "x", [], "semel reads .jsonl"),
        ("in.txt", "a\n", ["-o", "out.xlsx"], "unknown output format '.xlsx' (known: .npy, .jsonl, .parquet)"),
        ("in.txt", "a\n", ["-o", "no/such/out.npy"], "no/such does not exist"),
        (
            "in.txt",
            "a\n",
            ["--model", "nope"],
            "no model named 'nope' (known: fake, minilm, prompted, reranker)",
        ),
        ("in.txt", "a\n", ["--model", "reranker"], "'reranker' is a cross-encoder"),
        ("in.txt", "a\n", ["--model", "minilm", "--device", "tpu"], "device 'tpu' cannot be used"),
        ("in.txt", "a\n", ["--prompt-name", "query"], "has no prompt 'query'"),
        ("in.txt", "a poison\n", [], "in.txt:1 has no vector"),
        ("in.txt", "w " * 50, ["--no-truncate"], "longer than the model reads"),
        ("in.txt", "a\n", ["--url", "http://127.0.0.1:9"], "no semel server answers at http://127.0.0.1:9"),
        ("in.txt", "a\n", ["--url", "nonsense"], "is not an http:// or https:// address"),
        ("in.txt", "a\n", ["--local", "--url", "http://x"], "cannot be used together"),
    ],
)
def test_bad_input_is_reported_in_one_sentence(
    semel: Processes, tmp_path: Path, name: str, content: str | bytes, options: list[str], message: str
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    output = [] if "-o" in options else ["-o", str(tmp_path / "out.npy")]
    done = semel.semel("embed", str(tmp_path / name), *output, *options, ok=False)
    assert done.returncode not in (0, None)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not list(tmp_path.glob("out*"))


def test_an_output_is_replaced_only_when_asked(semel: Processes, tmp_path: Path) -> None:
    source, out = str(_txt(tmp_path)), tmp_path / "out.npy"
    out.write_text("mine")
    assert "--overwrite" in semel.semel("embed", source, "-o", str(out), ok=False).stderr
    assert out.read_text() == "mine"
    semel.semel("embed", source, "-o", str(out), "--overwrite")
    assert np.load(out).shape == (5, 16)


def _slow(tmp_path: Path) -> list[str]:
    """Write an input and a model that needs eight seconds for it; returns the command that embeds it."""
    (tmp_path / "slow.toml").write_text('default_model = "slow"\n[models.slow]\nsource = "fake:?dim=16&text_ms=2"\n')
    source = tmp_path / "in.txt"
    source.write_text("".join(f"slow {i}\n" for i in range(4000)))
    return [sys.executable, "-m", "semel", "embed", str(source), "-o", str(tmp_path / "out.npy")]


def test_ctrl_c_keeps_what_was_done_and_the_same_command_resumes(semel: Processes, tmp_path: Path) -> None:
    command = _slow(tmp_path)
    environment = {
        **semel.environment,
        "SEMEL_CONFIG": str(tmp_path / "slow.toml"),
        "SEMEL_HOME": str(tmp_path / "home"),
        "SEMEL_MAX_BATCH_TOKENS": "256",
    }
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: stored_vectors(tmp_path / "home") > 200)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "out.npy").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    summary = done.stderr.splitlines()[-1]
    hits = int(summary.partition(" hits")[0].split()[-1].replace(",", ""))
    assert 200 < hits < 4000
    assert np.load(tmp_path / "out.npy").shape == (4000, 16)


def test_ctrl_c_leaves_the_job_and_the_same_command_fetches_it(semel: Processes, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("".join(f"remote {tmp_path.name} {i}\n" for i in range(30_000)))
    command = ["embed", str(source), "-o", str(tmp_path / "out.npy"), "--url", semel.url]
    process = subprocess.Popen(
        [sys.executable, "-m", "semel", *command], env=semel.environment, stderr=subprocess.PIPE, text=True
    )
    wait_until((tmp_path / "out.npy.job").exists)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    if process.returncode == 0:
        pytest.fail("the job was too quick to be interrupted")
    assert "continues" in stderr
    before = len(semel.client.jobs(limit=100))
    semel.semel(*command)
    assert len(semel.client.jobs(limit=100)) == before
    assert np.load(tmp_path / "out.npy").shape == (30_000, 16)


def test_an_input_that_changes_while_its_job_runs_is_not_paired_with_old_vectors(
    semel: Processes, tmp_path: Path
) -> None:
    source = _txt(tmp_path)
    command = ["embed", str(source), "-o", str(tmp_path / "out.npy"), "--url", semel.url]
    job = semel.client.submit(TEXTS, model="fake")
    ticket = tmp_path / "out.npy.job"
    semel.client.wait(job.id)
    identity = _ticket_identity(source, tmp_path / "out.npy")
    ticket.write_text(json.dumps({"identity": identity, "job": job.id, "digest": "of other texts"}))
    refused = semel.semel(*command, ok=False)
    assert "the input changed while its job ran" in refused.stderr
    assert not (tmp_path / "out.npy").exists()


def _ticket_identity(source: Path, output: Path) -> str:
    from semel.cli.work.embedding import EmbedOptions
    from semel.cli.work.remote_embedding import _Ticket

    options = EmbedOptions(
        source,
        output,
        model=None,
        device="auto",
        text_field="text",
        prompt_name="",
        input_type="document",
        strict=False,
        truncate=True,
    )
    return _Ticket(options)._identity


def test_jobs_from_submit_to_results(semel: Processes, tmp_path: Path) -> None:
    job_id = semel.semel("jobs", "submit", str(_txt(tmp_path)), "--url", semel.url).stdout.strip()
    assert "completed" in semel.semel("jobs", "wait", job_id, "--url", semel.url).stdout
    shown = semel.semel("jobs", "show", job_id, "--url", semel.url).stdout
    assert "5 of 5" in shown
    assert "1 live worker with fake" in shown
    assert job_id in semel.semel("jobs", "list", "--url", semel.url).stdout
    out = tmp_path / "out.npy"
    semel.semel("jobs", "results", job_id, "-o", str(out), "--url", semel.url)
    assert np.array_equal(np.load(out), semel.client.embed(TEXTS, model="fake"))
    refused = semel.semel("jobs", "cancel", job_id, "--url", semel.url, ok=False)
    assert "is completed and cannot be cancelled" in refused.stderr
    assert "there is no job" in semel.semel("jobs", "show", "job_x", "--url", semel.url, ok=False).stderr


def test_a_submitted_row_comes_back_with_its_id_and_metadata(semel: Processes, tmp_path: Path) -> None:
    source = tmp_path / "rows.parquet"
    day = datetime.date(2026, 5, 4)
    pq.write_table(pa.table({"id": [1.5, 2.5], "body": ["one", "two words"], "page": [3, 4], "day": [day] * 2}), source)
    submit = ("jobs", "submit", str(source), "--text-field", "body", "--url", semel.url)
    job = semel.client.wait(semel.semel(*submit).stdout.strip())
    with semel.client.results_stream(job.id, fmt="ndjson") as parts:
        rows = [json.loads(line) for line in b"".join(parts).splitlines()]
    assert [row["id"] for row in rows] == [1.5, 2.5]
    assert [row["metadata"] for row in rows] == [{"page": 3, "day": "2026-05-04"}, {"page": 4, "day": "2026-05-04"}]
    assert np.array_equal(
        np.array([r["embedding"] for r in rows], np.float32), semel.client.embed(["one", "two words"])
    )


def test_rerank_indices_count_the_rows_of_the_input(semel: Processes, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": ""}\n{"text": "one"}\n{"text": "two words"}\n')
    command = ("rerank", "two words", str(source), "--json", "--url", semel.url)
    done = semel.semel(*command)
    assert [row["index"] for row in json.loads(done.stdout)] == [2, 1]
    assert "1 inputs cannot be read" in done.stderr
    assert "in.jsonl:1: the text is empty" in done.stderr


def test_jobs_are_filtered_and_deleted(semel: Processes, tmp_path: Path) -> None:
    job_id = semel.semel("jobs", "submit", str(_txt(tmp_path)), "--url", semel.url).stdout.strip()
    semel.semel("jobs", "wait", job_id, "--url", semel.url)
    listed = ("jobs", "list", "--url", semel.url, "--status")
    assert job_id in semel.semel(*listed, "completed").stdout
    assert job_id not in semel.semel(*listed, "failed").stdout
    assert "status: Input should be" in semel.semel(*listed, "sleeping", ok=False).stderr
    semel.semel("jobs", "delete", job_id, "--url", semel.url)
    assert "there is no job" in semel.semel("jobs", "delete", job_id, "--url", semel.url, ok=False).stderr


def test_rerank_prints_the_best_first(semel: Processes, tmp_path: Path) -> None:
    command = ("rerank", "two words", str(_txt(tmp_path)), "--top-n", "2", "--url", semel.url)
    first, _ = semel.semel(*command).stdout.splitlines()
    assert first.split() == ["1.0000", "1", "two", "words"]
    ranked = json.loads(semel.semel(*command, "--json").stdout)
    assert (len(ranked), ranked[0]["text"]) == (2, "two words")
    assert "the query is empty" in semel.semel("rerank", "", *command[2:], ok=False).stderr


def test_cache_stats_verify_and_prune(semel: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(semel.environment, "SEMEL_HOME", str(tmp_path / "home"))
    semel.semel("embed", str(_txt(tmp_path)), "-o", str(tmp_path / "out.npy"))
    (space,) = json.loads(semel.semel("cache", "stats", "--json").stdout)
    assert (space["model"], space["entries"], space["bytes"]) == ("fake", 4, 4 * 64)
    assert "4 vectors read, 0 damaged" in semel.semel("cache", "verify").stdout
    assert "choose what to delete" in semel.semel("cache", "prune", ok=False).stderr
    assert "takes a number with a unit" in semel.semel("cache", "prune", "--max-bytes", "many", ok=False).stderr
    assert "2 vectors would" in semel.semel("cache", "prune", "--max-bytes", "128", "--dry-run").stdout
    assert "add --yes" in semel.semel("cache", "prune", "--max-bytes", "128", ok=False).stderr
    assert "2 vectors deleted" in semel.semel("cache", "prune", "--max-bytes", "128", "--yes").stdout
    deleted = semel.semel("cache", "prune", "--fingerprint", space["fingerprint"][:8], "--yes").stdout
    assert "2 vectors deleted" in deleted
    assert "the cache is empty" in semel.semel("cache", "stats").stdout


def test_models_and_devices_list_what_is_there(semel: Processes) -> None:
    models = {m["name"]: m for m in json.loads(semel.semel("models", "--json").stdout)}
    assert models["minilm"]["dimensions"] == 384
    assert "cpu" in semel.semel("devices").stdout
    devices = {d["name"]: d for d in json.loads(semel.semel("devices", "--json").stdout)}
    assert devices["cpu"]["usable"]
    assert all(d["why"] for d in devices.values())


def test_a_wrong_setting_is_reported_in_one_sentence(semel: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(semel.environment, "SEMEL_CHUNK_TEXTS", "many")
    refused = semel.semel("models", ok=False)
    assert refused.returncode == 2
    assert "setting 'chunk_texts' (SEMEL_CHUNK_TEXTS" in refused.stderr


MINILM = 'default_model = "minilm"\n'


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with processes(tmp_path_factory.mktemp("minilm"), toml=MINILM) as running:
        yield running


@WHERE
def test_long_files_are_split_into_pieces_that_the_model_reads_whole(
    minilm: Processes, where: str, tmp_path: Path
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("one.md", "two.txt"):
        (docs / name).write_text("\n\n".join(f"{name} has a paragraph number {i}, with words." for i in range(120)))
    (docs / "short.txt").write_text("A short text.")
    run = ["embed", str(docs), *arguments(minilm, where), "--overwrite", "-o", str(tmp_path / "out.parquet")]
    whole = minilm.semel(*run)
    assert "2 texts (66.7 %) were longer than the model's limit: about 8" in whole.stderr
    split = minilm.semel(*run, "--chunk", "--chunk-overlap", "20")
    assert "longer than the model's limit" not in split.stderr
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["id"] for row in rows if row["id"].startswith("short")] == ["short.txt#0"]
    first = [row["text"] for row in rows if row["id"].startswith("one.md#")]
    assert len(first) > 5
    assert "number 0," in first[0]
    assert "number 119," in first[-1]
    assert not any(row["truncated"] for row in rows)


def test_a_server_with_other_files_does_not_get_pieces(minilm: Processes, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a text\n")
    (tmp_path / "semel.toml").write_text('[models.minilm]\nsource = "fake:"\n')
    run = ["embed", str(tmp_path / "in.txt"), "--url", minilm.url, "--chunk", "-o", str(tmp_path / "out.jsonl")]
    before = minilm.environment["SEMEL_CONFIG"]
    minilm.environment["SEMEL_CONFIG"] = str(tmp_path / "semel.toml")
    try:
        done = minilm.semel(*run, ok=False)
    finally:
        minilm.environment["SEMEL_CONFIG"] = before
    assert (done.returncode, "the server's 'minilm' has other files" in done.stderr) == (2, True)
