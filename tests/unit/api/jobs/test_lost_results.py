"""Results whose vectors the cache has lost since the job ran.

A chunk with a failed text keeps its texts, so the jobs here have one.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, update

from semel.api.jobs.result_formats import npy
from semel.api.jobs.results import Rows
from semel.cache.schema import vectors as vector_rows
from semel.errors import ConflictError, ForbiddenError
from semel.tasks.jobs.schema import jobs as job_rows
from semel.values.activation import Head
from semel.values.job import Job
from semel.values.text import ItemError, Outcome
from tests.support.job_results import lines, read, run
from tests.support.parts import Parts


def lose(running: Parts, job: Job, *positions: int) -> None:
    keys = [key for chunk in running.services.stores.jobs.results(job.id) for key in chunk.keys]
    with running.services.stores.db.write() as conn:
        conn.execute(delete(vector_rows).where(vector_rows.c.key.in_([keys[i] for i in positions])))


def test_lost_vectors_are_computed_again_in_their_places(running: Parts) -> None:
    job = run(running, [*(f"lost and found {i}" for i in range(6)), "poison"])
    before = lines(running, job)
    lose(running, job, 0, 3, 5)
    assert lines(running, job) == before


def test_lost_vectors_are_computed_again_in_the_variant_of_their_job(running: Parts) -> None:
    texts = ["the first words and the end", "kept", "poison"]
    job = run(running, texts, max_tokens=2, truncate_side="left", normalize=False)
    before = lines(running, job)
    lose(running, job, 0)
    assert lines(running, job) == before


def test_lost_logits_become_scores_as_those_that_are_kept(running: Parts) -> None:
    pairs = [{"query": "a b", "document": text} for text in ("lost a b", "kept a", "poison")]
    job = replace(run(running, pairs, model="reranker"), head=Head("Sigmoid"), kind="cross-encoder")
    assert [line.get("score") for line in lines(running, job)] == [
        pytest.approx(0.7310586),
        pytest.approx(0.6224593),
        None,
    ]
    before = lines(running, job)
    lose(running, job, 0)
    assert lines(running, job) == before


def test_a_reader_who_may_not_submit_has_nothing_computed(running: Parts) -> None:
    job = run(running, ["lost", "kept", "poison"])
    lose(running, job, 0)
    before = len(running.worker.sent)
    with pytest.raises(ForbiddenError, match=r"the cache has lost 1 vectors .* the API key needs the scope 'submit'"):
        list(running.services.results.read(job, range(3), may_submit=False))
    assert len(running.worker.sent) == before


def test_a_lost_vector_in_a_range_gets_its_own_text(running: Parts) -> None:
    job = run(running, [*({"id": i, "text": f"lost in a range {i}"} for i in range(8)), {"text": "poison"}])
    before = lines(running, job)
    lose(running, job, 5, 6)
    assert lines(running, job, range(5, 7)) == before[5:7]


def test_damaged_vectors_are_computed_again(running: Parts) -> None:
    job = run(running, ["damaged on disk", "sound", "poison"])
    before = lines(running, job)
    (chunk,) = running.services.stores.jobs.results(job.id)
    with running.services.stores.db.write() as conn:
        conn.execute(update(vector_rows).where(vector_rows.c.key == chunk.keys[0]).values(data=bytes(64)))
    assert lines(running, job) == before


def test_a_text_that_fails_when_it_is_computed_again_has_an_error(
    running: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = run(running, ["computed once", "and kept", "poison"])
    lose(running, job, 0)
    embed_again = running.services.pipeline.embed

    def fails(*args: Any, **options: Any) -> Any:
        return replace(embed_again(*args, **options), errors={0: ItemError("backend_error", "the device is dead")})

    monkeypatch.setattr(running.services.pipeline, "embed", fails)
    lost, kept, _ = lines(running, job)
    assert (lost["error"]["message"], "embedding" in kept) == ("the device is dead", True)
    lose(running, job, 0)
    with pytest.raises(ConflictError, match="no longer has a vector"):
        read(running, job, "npy")


def test_lost_vectors_of_texts_that_were_not_kept_are_an_error_that_says_what_to_do(running: Parts) -> None:
    job = run(running, ["one", "two"])
    lose(running, job, 1)
    with pytest.raises(ConflictError, match=r"the cache has lost 1 vectors of job .*; submit the job again"):
        lines(running, job)


def test_lost_vectors_of_other_weights_are_an_error_and_never_mixed_in(running: Parts) -> None:
    job = run(running, ["made with older weights", "poison"])
    lose(running, job, 0)
    with running.services.stores.db.write() as conn:
        conn.execute(update(job_rows).where(job_rows.c.id == job.id).values(fingerprint=bytes(32)))
    older = running.services.stores.jobs.get(job.id)
    with pytest.raises(ConflictError, match="model 'fake' has different weights now; submit the job again"):
        lines(running, older)


def test_rows_of_failed_texts_are_not_computed_again(running: Parts) -> None:
    job = run(running, ["poison", "", "a good one"])
    before = len(running.worker.sent)
    assert ["error" in line for line in lines(running, job)] == [True, True, False]
    assert len(running.worker.sent) == before


def test_npy_ends_short_of_its_header_rather_than_with_a_shifted_row(running: Parts) -> None:
    job = run(running, ["as an array"])
    good = Rows(0, np.ones((2, 16), np.float32), [Outcome.HIT] * 2, {}, [False] * 2, [1] * 2, [None] * 2)
    bad = replace(good, first_index=2, errors={1: ItemError("backend_error", "gone")})
    stream = npy(job, range(4), iter([good, bad]))
    got = next(stream) + next(stream)
    with pytest.raises(ConflictError):
        next(stream)
    assert len(got) == 128 + 2 * 16 * 4
