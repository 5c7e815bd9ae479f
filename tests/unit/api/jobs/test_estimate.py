"""What a job would do, before it is submitted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from semel.api.jobs.estimate import EstimateObject, estimating
from semel.api.jobs.wire import JobRequest
from semel.errors import BadInputError, UnavailableError
from semel.tasks.fleet.card import ModelRate, WorkerCard
from semel.values.model import ModelEntry
from tests.support.parts import Parts, parts
from tests.support.service import Service


def estimate(running: Parts, rows: Sequence[Any], **options: Any) -> EstimateObject:
    with estimating(running.services, JobRequest(input=[], **options)) as ingest:
        for i, row in enumerate(rows):
            if isinstance(row, dict):
                ingest.add_row(row, f"input[{i}]")
            else:
                ingest.add(row)
        return ingest.finish()


def embed(running: Parts, *texts: str) -> None:
    running.services.pipeline.embed(running.services.stores.catalog.space("fake"), list(texts))


def test_an_estimate_counts_texts_repetitions_and_hits(running: Parts) -> None:
    embed(running, "a hit", "another hit")
    found = estimate(running, ["a hit", "a miss", "a hit", "another hit", "a miss", "", "a second miss"])
    assert (found.texts, found.distinct, found.cached, found.to_compute, found.failed) == (7, 4, 3, 2, 1)


def test_repetitions_are_found_across_chunks(running: Parts) -> None:
    texts = [f"repeated {i % 700}" for i in range(2100)]  # three chunks of at most 1024
    found = estimate(running, texts)
    assert (found.texts, found.distinct, found.to_compute) == (2100, 700, 700)


def test_nothing_is_stored_computed_or_submitted(running: Parts) -> None:
    before = len(running.worker.sent), running.services.stores.jobs.list_jobs(limit=1)
    first = estimate(running, ["never computed"])
    assert estimate(running, ["never computed"]) == first
    assert (len(running.worker.sent), running.services.stores.jobs.list_jobs(limit=1)) == before


def test_the_time_is_that_of_the_missing_texts_at_the_measured_rate(running: Parts) -> None:
    embed(running, "no time for this")
    found = estimate(
        running, ["no time for this", *(f"{i:02} takes 12 tokens of its model, or nearly" for i in range(50))]
    )
    assert (found.tokens, found.compute_s, found.queue_s, found.device) == (50 * 13, 50 * 13 / 5000, 0.0, "cpu")
    assert "live worker with fake" in found.why


def test_tokens_and_disk_are_those_of_distinct_missing_texts_as_the_model_reads_them(running: Parts) -> None:
    embed(running, "nothing of this one")
    found = estimate(running, ["nothing of this one", "of 21 characters here", "of 21 characters here", "long " * 100])
    assert found.tokens == (21 // 4 + 1 + 2) + 20, "the model reads 20 tokens at most"
    assert found.disk_bytes == 2 * (16 * 4 + 150)
    assert found.cost is None


def test_a_limit_of_tokens_lowers_the_estimate(running: Parts) -> None:
    assert estimate(running, ["long " * 100], max_tokens=7).tokens == 7


def test_the_cost_is_that_of_the_tokens(tmp_path: Path) -> None:
    priced = {"fake": ModelEntry("fake:?dim=16&max_tokens=20", price_per_million_tokens=50_000.0)}
    with parts(tmp_path, models=priced) as running:
        assert estimate(running, ["long " * 100]).cost == pytest.approx(1.0)


def test_a_job_of_hits_takes_no_time(running: Parts) -> None:
    embed(running, "all of it known")
    assert estimate(running, ["all of it known"], device="cuda").compute_s == 0.0


def test_without_a_measured_rate_the_time_is_unknown(running: Parts) -> None:
    found = estimate(running, ["of unknown duration"], device="cuda")
    assert (found.compute_s, found.device) == (None, "cuda")


def test_workers_of_other_weights_and_devices_do_not_speed_a_job_up(running: Parts) -> None:
    fingerprint = running.services.stores.catalog.space("fake").fingerprint.hex()
    alike = {"host": "h", "pid": 1, "started_at": 0.0, "models": ["fake"], "rates": {"fake": ModelRate(9e9, 5.0)}}
    running.publish(WorkerCard(id="other-weights", device="cpu", spaces=["00"], **alike))  # type: ignore[arg-type]
    running.publish(WorkerCard(id="gpu", device="mps", spaces=[fingerprint], **alike))  # type: ignore[arg-type]
    found = estimate(running, ["at the rate of one pool"], device="cpu")
    for worker in ("other-weights", "gpu"):
        running.services.fleet.roster.leave(worker)
    running.services.fleet.roster.live()
    assert found.compute_s == found.tokens / 5000


def test_the_preview_has_the_first_five_good_texts_cut_to_300_characters(running: Parts) -> None:
    found = estimate(running, ["", "x" * 400, *(f"shown {i}" for i in range(9))])
    assert found.preview == [{"text": "x" * 300}, *({"text": f"shown {i}"} for i in range(4))]


def test_the_preview_of_pairs_has_both_parts(running: Parts) -> None:
    found = estimate(running, [{"query": "q" * 400, "document": "d"}], model="reranker")
    assert found.preview == [{"query": "q" * 300, "document": "d"}]
    assert found.to_compute == 1


def test_the_first_five_bad_rows_are_named_by_their_places(running: Parts) -> None:
    found = estimate(running, ["fine", *[""] * 9])
    assert [row.index for row in found.bad_rows] == [1, 2, 3, 4, 5]
    assert found.failed == 9
    assert found.bad_rows[0].message.startswith("text 1 is empty")


def test_bad_rows_of_later_chunks_have_their_places_in_the_whole(running: Parts) -> None:
    found = estimate(running, [f"in front {i}" for i in range(1100)] + [""])
    assert [row.index for row in found.bad_rows] == [1100]


def test_what_the_model_would_not_read_is_estimated(running: Parts) -> None:
    found = estimate(running, ["short", "w " * 200, "w " * 200])
    assert (found.truncated, found.unread_share) == (2, pytest.approx(0.79, abs=0.02))
    whole = estimate(running, ["short"])
    assert (whole.truncated, whole.unread_share) == (0, 0.0)


def test_a_job_that_would_be_refused_is_refused_now(running: Parts) -> None:
    with pytest.raises(BadInputError, match="no model named 'nope'"):
        estimate(running, ["x"], model="nope")
    with running.redis_gone(), pytest.raises(UnavailableError):
        estimate(running, ["x"])


def test_an_estimate_of_nothing_is_refused_as_the_job_would_be(running: Parts) -> None:
    with pytest.raises(BadInputError, match="the list of texts is empty"):
        estimate(running, [])


# Over HTTP


def test_a_query_and_body_of_a_job_can_be_estimated(api: Service) -> None:
    body = b'{"body": "estimated over HTTP"}\n{"body": ""}\n'
    headers = {"content-type": "application/x-ndjson"}
    params = {"text_field": "body", "model": "prompted", "prompt_name": "query"}
    found = api.http.post("/v1/jobs/estimate", content=body, headers=headers, params=params).json()
    assert (found["object"], found["model"], found["texts"], found["failed"]) == ("estimate", "prompted", 2, 1)
    assert found["preview"] == [{"text": "estimated over HTTP"}]
    assert api.http.get("/v1/jobs").json()["data"] == []
