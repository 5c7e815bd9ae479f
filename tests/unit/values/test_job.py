"""The states of a job and the counts of its texts."""

from dataclasses import replace

import pytest

from semel.values.job import ENDED, OPEN, Counts, Job, JobStatus
from semel.values.key_base import key_base
from semel.values.text import Lane
from semel.values.variant import Variant


def job(*, dim: int) -> Job:
    return Job(
        id="job_1", status=JobStatus.IN_PROGRESS, model="m", prompt_name="", fingerprint=b"f", dim=dim, lane=Lane.BULK,
        device="cpu", why="", truncate=True, total=1, chunks=1, chunks_done=0, counts=Counts(), created_at=0.0,
        expires_at=1.0,
    )  # fmt: skip


def test_every_state_is_either_open_or_ended() -> None:
    assert {*OPEN, *ENDED} == {*JobStatus}
    assert not {*OPEN} & {*ENDED}


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
def test_these_states_are_final(status: str) -> None:
    assert JobStatus(status).ended


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "cancelling"])
def test_these_states_are_not_final(status: str) -> None:
    assert not JobStatus(status).ended


def test_a_truncated_text_is_counted_once_among_those_that_are_done() -> None:
    assert Counts(hit=3, computed=4, coalesced=2, failed=1, truncated=5, tokens=99).done == 10


def test_the_keys_of_a_job_are_those_of_its_variant_if_it_has_one() -> None:
    plain = job(dim=4)
    varied = replace(plain, variant=Variant(max_tokens=5), variant_fingerprint=b"v")
    assert (plain.key_base, varied.key_base) == (key_base(b"f", ""), key_base(b"v", ""))
