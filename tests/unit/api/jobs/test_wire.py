"""The JSON of jobs."""

import typing

import pytest
from pydantic import ValidationError

from semel.api.jobs.wire import (
    JobObject,
    JobQuery,
    JobRequest,
    check_metadata,
    failed_object,
    job_object,
    metadata_of,
)
from semel.errors import BadInputError
from semel.tasks.jobs.parts import FailedText
from semel.values.job import Counts, Job, JobOptions, JobStatus
from semel.values.text import Extra, ItemError, Lane, Pair


def job(**changed: typing.Any) -> Job:
    values: dict[str, typing.Any] = {
        "id": "job_1", "status": JobStatus.IN_PROGRESS, "model": "fake", "prompt_name": "", "fingerprint": b"f",
        "dim": 16, "lane": Lane.BULK, "device": "cpu", "why": "", "truncate": True, "total": 9, "chunks": 1,
        "chunks_done": 0, "counts": Counts(hit=1, computed=2, coalesced=3, failed=1, truncated=5, tokens=70),
        "created_at": 1.0, "expires_at": 2.0, **changed,
    }  # fmt: skip
    return Job(**values)


# The options


def test_the_client_and_the_server_have_the_same_options() -> None:
    assert set(JobOptions.__annotations__) == set(JobQuery.model_fields)


def test_a_json_body_has_the_options_of_the_url_and_its_rows() -> None:
    assert set(JobRequest.model_fields) == set(JobQuery.model_fields) | {"input"}


def test_only_options_that_were_sent_are_given() -> None:
    assert JobQuery().given() == {}
    assert JobQuery(device="cpu", metadata='{"a": "b"}').given() == {"device": "cpu", "metadata": {"a": "b"}}


def test_a_default_that_was_sent_counts_as_sent() -> None:
    assert JobQuery(truncate=True, metadata="{}").given() == {"truncate": True, "metadata": {}}


def test_a_json_body_has_no_unknown_field() -> None:
    with pytest.raises(ValidationError, match="dimensions"):
        JobRequest.model_validate({"input": ["x"], "dimensions": 4})


def test_if_no_worker_is_wait_or_fail() -> None:
    with pytest.raises(ValidationError, match="'wait' or 'fail'"):
        JobQuery.model_validate({"if_no_worker": "move"})


# Metadata


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '"a"', "null", '{"a": 1}', '{"a": null}', "[" * 100_000])
def test_metadata_is_a_json_object_of_strings(text: str) -> None:
    with pytest.raises(BadInputError, match="metadata must be a JSON object whose values are strings"):
        metadata_of(text)


@pytest.mark.parametrize("text", ['{"\\ud800": "b"}', '{"a": "\\udfff"}'])
def test_metadata_with_a_lone_surrogate_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadInputError, match="lone surrogate"):
        metadata_of(text)


def test_the_name_in_that_error_is_escaped() -> None:
    with pytest.raises(BadInputError) as refused:
        check_metadata({"\ud800": "b"})
    assert str(refused.value).encode()  # the message itself can be sent
    assert r"'\ud800'" in str(refused.value)


def test_metadata_in_any_script_is_fine() -> None:
    assert metadata_of('{"Größe": "大 😀"}') == {"Größe": "大 😀"}


# Objects in answers


def test_done_is_the_sum_of_the_outcomes_without_truncated_texts() -> None:
    counts = job_object(job()).counts
    assert (counts.total, counts.done, counts.truncated, counts.tokens) == (9, 7, 5, 70)


def test_a_job_on_the_wire_shows_why_it_failed() -> None:
    shown = job_object(job(status=JobStatus.FAILED, error=ItemError("storage_full", "full")))
    assert shown.error is not None
    assert (shown.status, shown.error.code, shown.error.message) == ("failed", "storage_full", "full")
    assert job_object(job()).error is None


def test_every_state_has_its_time_on_the_wire() -> None:
    times = {name for name in JobObject.model_fields if name.endswith("_at")}
    assert {f"{status}_at" for status in JobStatus if status is not JobStatus.VALIDATING} <= times


def failed(text: str | Pair, extra: Extra | None = None) -> FailedText:
    return FailedText(3, text, extra, ItemError("invalid_text", "text 3 is empty"))


def test_a_failed_text_is_cut_to_500_characters() -> None:
    assert failed_object(failed("ä" * 600), with_text=True).text == "ä" * 500


def test_a_failed_pair_is_shown_as_one_text() -> None:
    assert failed_object(failed(Pair("q", "d")), with_text=True).text == "q ‖ d"


def test_a_key_that_may_only_read_sees_no_text() -> None:
    shown = failed_object(failed("secret", Extra(7, {"page": 3})), with_text=False)
    assert (shown.text, shown.id, shown.index, shown.error.code) == (None, 7, 3, "invalid_text")


def test_a_failed_row_without_an_id_has_none() -> None:
    assert failed_object(failed("x"), with_text=True).id is None
