"""The output and error files of a batch: every line in one of them, each with its own rows."""

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from semel.api.batch.lines import Line, request_of
from semel.api.batch.output import OutputWriter, Place, Written, place_of, rows_in_order
from semel.api.jobs.submission import create, job_ingest
from semel.api.jobs.wire import JobRequest
from semel.errors import ConflictError, UnavailableError
from semel.tasks.jobs.schema import jobs as job_rows
from semel.values.job import Job
from semel.values.text import ItemError, Outcome
from semel.values.variant import AS_DEFINED, Variant
from tests.support.batches import line, new_batch
from tests.support.parts import Parts

CANCELLED = ItemError("batch_cancelled", "the batch was cancelled")


def submit(running: Parts, texts: list[str], model: str = "fake", prompt_name: str = "", **options: Any) -> Job:
    request = JobRequest(input=[], model=model, prompt_name=prompt_name, **options)
    ingest = job_ingest(running.services, create(running.services, request))
    for text in texts:
        ingest.add(text)
    return ingest.finish()


def write(
    running: Parts, lines: list[Any], jobs: list[Job], endpoint: str = "/v1/embeddings"
) -> tuple[Written, list[dict[str, Any]], list[dict[str, Any]]]:
    """What the files hold, and the records of the output and the error file."""
    batch = new_batch(running, lines, endpoint)
    output, errors, after = io.BytesIO(), io.BytesIO(), list[int]()
    writer = OutputWriter(running.services, batch, {place_of(job): job for job in jobs}, why_undone=CANCELLED)
    written = writer.write(output, errors, after_line=lambda: after.append(1))
    assert len(after) == len(lines)
    return written, *([json.loads(text) for text in file.getvalue().splitlines()] for file in (output, errors))


def test_each_line_gets_its_own_vectors_in_the_order_of_the_input(running: Parts) -> None:
    lines = [line("b", input="one"), line("a", input=["two", "three"]), line("c", input="one")]
    job = submit(running, ["one", "two", "three", "one"])
    written, output, errors = write(running, lines, [job])
    assert [record["custom_id"] for record in output] == ["b", "a", "c"]
    assert errors == []
    space = running.services.stores.catalog.space("fake")
    vectors = running.services.pipeline.embed(space, ["one", "two", "three", "one"]).vectors
    found = [item["embedding"] for record in output for item in record["response"]["body"]["data"]]
    np.testing.assert_array_equal(np.array(found, np.float32), vectors)
    assert [len(record["response"]["body"]["data"]) for record in output] == [1, 2, 1]
    assert (written.completed, written.failed, written.undone) == (3, 0, 0)


def test_a_record_has_the_fields_of_openai(running: Parts) -> None:
    _, (record,), _ = write(running, [line("a", input="fields")], [submit(running, ["fields"])])
    assert record.keys() == {"id", "custom_id", "response", "error"}
    assert record["id"].startswith("batch_req_")
    assert record["response"]["request_id"].startswith("req_")
    assert (record["response"]["status_code"], record["error"]) == (200, None)


def test_tokens_are_counted_and_those_of_hits_apart(running: Parts) -> None:
    submit(running, ["has three tokens"])
    job = submit(running, ["has three tokens", "two tokens"])
    written, _, _ = write(running, [line("a", input="has three tokens"), line("b", input="two tokens")], [job])
    assert (written.input_tokens, written.cached_tokens) == (5, 3)


def test_a_line_that_cannot_be_run_takes_no_row(running: Parts) -> None:
    lines = [line("bad", input=""), line("good", input="a good line"), line("worse", input=[1, 2])]
    written, output, errors = write(running, lines, [submit(running, ["a good line"])])
    assert [record["custom_id"] for record in output] == ["good"]
    assert [record["custom_id"] for record in errors] == ["bad", "worse"]
    assert [record["response"]["status_code"] for record in errors] == [400, 400]
    assert "is empty" in errors[0]["response"]["body"]["error"]["message"]
    assert (written.completed, written.failed, written.undone) == (1, 2, 0)


def test_a_text_that_fails_fails_its_line_and_no_other(running: Parts) -> None:
    lines = [line("a", input=["fine", "poison"]), line("b", input="fine as well")]
    written, output, errors = write(running, lines, [submit(running, ["fine", "poison", "fine as well"])])
    assert [record["custom_id"] for record in output] == ["b"]
    (record,) = errors
    assert record["response"]["status_code"] == 400
    assert record["response"]["body"]["error"]["param"] == "input[1]"
    assert written.input_tokens == 3, "those of a failed line are not counted"


def test_an_answer_that_cannot_be_made_is_an_error(running: Parts) -> None:
    long = " ".join(["word"] * 30)
    lines = [line("a", input=long, truncate=False), line("b", input=long)]
    _, output, errors = write(running, lines, [submit(running, [long, long])])
    assert ([r["custom_id"] for r in output], [r["custom_id"] for r in errors]) == (["b"], ["a"])
    assert "longer than the model reads" in errors[0]["response"]["body"]["error"]["message"]


def test_errors_of_a_rerank_have_the_shape_of_cohere(running: Parts) -> None:
    lines = [line("a", "/v1/rerank", query="q", documents=[]), line("b", "/v1/rerank", query="q", documents=["d"])]
    job = submit(running, ["q", "d"])
    _, output, errors = write(running, lines, [job], "/v1/rerank")
    assert [record["custom_id"] for record in output] == ["b"]
    assert errors[0]["response"]["body"].keys() == {"message", "code", "detail"}


def test_lines_with_different_prompts_take_rows_from_different_jobs(running: Parts) -> None:
    prompted = {"model": "prompted"}
    lines = [
        line("a", input="first", **prompted, input_type="query"),
        line("b", input="second", **prompted, input_type="document"),
        line("c", input="third", **prompted, input_type="query"),
    ]
    jobs = [
        submit(running, ["first", "third"], "prompted", "query"),
        submit(running, ["second"], "prompted", "document"),
    ]
    written, output, _ = write(running, lines, jobs)
    assert written.completed == 3
    direct = request_of(running.services, "/v1/embeddings", Line("c", lines[2]["body"])).inputs
    vector = running.services.pipeline.embed(direct[0][0], ["third"]).vectors[0].tolist()
    assert output[2]["response"]["body"]["data"][0]["embedding"] == pytest.approx(vector)


# Lines that were not done


def test_a_line_whose_job_is_gone_is_reported_as_not_done(running: Parts) -> None:
    written, output, errors = write(running, [line("a", input="whose job is gone")], [])
    assert output == []
    assert errors[0]["error"] == {"code": "batch_cancelled", "message": "the batch was cancelled"}
    assert errors[0]["response"] is None
    assert (written.failed, written.undone) == (1, 1)


def test_a_chunk_that_did_not_run_leaves_only_its_own_lines_undone(running: Parts) -> None:
    texts = [f"of two chunks {i}" for i in range(1026)]
    running.worker.paused = True
    job = submit(running, texts)
    running.services.stores.jobs.cancel(job.id)
    running.worker.paused = False
    submit(running, texts[:1024])
    running.worker.paused = True
    half = submit(running, texts)  # the first chunk is all hits, the second waits
    running.services.stores.jobs.cancel(half.id)
    running.worker.paused = False
    lines = [line(str(i), input=text) for i, text in enumerate(texts)]
    written, output, errors = write(running, lines, [running.services.stores.jobs.get(half.id)])
    assert [record["custom_id"] for record in output] == [str(i) for i in range(1024)]
    assert [record["custom_id"] for record in errors] == ["1024", "1025"]
    assert (written.completed, written.undone) == (1024, 2)


def test_a_line_with_one_input_undone_is_undone_and_its_rows_are_used_up(running: Parts) -> None:
    texts = [f"a row of its own {i}" for i in range(1025)]
    submit(running, texts[:1024])
    running.worker.paused = True
    job = submit(running, texts)
    running.services.stores.jobs.cancel(job.id)
    running.worker.paused = False
    lines = [line("first", input=texts[:1023]), line("both", input=texts[1023:])]
    _, output, errors = write(running, lines, [running.services.stores.jobs.get(job.id)])
    assert ([r["custom_id"] for r in output], [r["custom_id"] for r in errors]) == (["first"], ["both"])


def test_rows_in_order_have_a_place_for_what_was_not_done(running: Parts) -> None:
    submit(running, ["known to the cache by now"])
    running.worker.paused = True
    job = submit(running, ["known to the cache by now"] * 1024 + ["not done"])
    running.services.stores.jobs.cancel(job.id)
    running.worker.paused = False
    rows = list(rows_in_order(running.services.results, running.services.stores.jobs.get(job.id)))
    assert len(rows) == 1025
    assert [row is None for row in rows] == [False] * 1024 + [True]
    assert rows[0] is not None
    assert rows[0].outcome is Outcome.HIT


# Rows that do not belong


def test_a_row_of_another_text_is_an_error_and_never_an_answer(running: Parts) -> None:
    job = submit(running, ["one text", "another text"])
    with pytest.raises(ConflictError, match="the model's prompts changed while the batch ran; submit it again"):
        write(running, [line("a", input="another text"), line("b", input="one text")], [job])


def test_a_row_of_another_space_is_an_error(running: Parts) -> None:
    job = submit(running, ["in another space"])
    with running.services.stores.db.write() as conn:
        conn.execute(update(job_rows).where(job_rows.c.id == job.id).values(fingerprint=bytes(32)))
    with pytest.raises(ConflictError):
        write(running, [line("a", input="in another space")], [running.services.stores.jobs.get(job.id)])


def test_an_outage_is_raised_and_written_to_no_file(running: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit(running, ["during an outage"])

    def away(*_: Any, **__: Any) -> Any:
        raise UnavailableError("the database does not answer")

    monkeypatch.setattr(running.services.stores.catalog, "space", away)
    with pytest.raises(UnavailableError):
        write(running, [line("a", input="during an outage")], [job])


def test_a_text_that_failed_for_an_outage_has_the_status_of_one(running: Parts) -> None:
    job = submit(running, ["a text with an outage"])
    batch = new_batch(running, [line("a", input="a text with an outage")])
    writer = OutputWriter(running.services, batch, {place_of(job): job}, why_undone=CANCELLED)
    (row,) = rows_in_order(running.services.results, job)
    assert row is not None
    failed = replace(row, outcome=Outcome.FAILED, error=ItemError("service_unavailable", "no worker"))
    writer._rows = {place_of(job): iter([failed])}
    output, errors = io.BytesIO(), io.BytesIO()
    writer.write(output, errors, after_line=lambda: None)
    assert json.loads(errors.getvalue())["response"]["status_code"] == 503


def test_lines_with_different_variants_take_rows_from_different_jobs(running: Parts) -> None:
    text = "the first words and the last"
    lines = [line("plain", input=text), line("left", input=text, max_tokens=2, truncate_side="left")]
    jobs = [submit(running, [text]), submit(running, [text], max_tokens=2, truncate_side="left")]
    _, output, _ = write(running, lines, jobs)
    found = [record["response"]["body"]["data"][0]["embedding"] for record in output]
    space = running.services.stores.catalog.space("fake")
    assert found == [
        pytest.approx(v.tolist()) for v in running.services.pipeline.embed(space, [text, "the last"]).vectors
    ]


def test_a_place_is_a_model_with_a_prompt_and_a_variant(running: Parts) -> None:
    space = running.services.stores.catalog.space("prompted", "query")
    place: Place = place_of(space)
    assert place == ("prompted", "query", AS_DEFINED)
    assert place_of(submit(running, ["placed"], "prompted", "query")) == place
    left = place_of(space.with_variant(Variant(truncate_side="left")))
    assert left == ("prompted", "query", Variant(truncate_side="left"))
    assert place_of(submit(running, ["placed"], "prompted", "query", truncate_side="left")) == left
