"""OpenAI's file and batch objects."""

from typing import Any

import pytest
from openai.types import Batch as OpenAIBatch
from openai.types import FileObject as OpenAIFile
from pydantic import ValidationError

from semel.api.batch.wire import BatchRequest, batch_object, expires_after, file_object
from semel.errors import BadInputError
from semel.tasks.jobs.batches import Batch, LineError
from semel.tasks.jobs.files import StoredFile
from semel.values.job import JobStatus


def batch(**changed: Any) -> Batch:
    values: dict[str, Any] = {
        "id": "batch_1", "status": JobStatus.COMPLETED, "endpoint": "/v1/embeddings", "input_file_id": "file-1",
        "completion_window": "24h", "created_at": 1.9, "expires_at": 2.9, "model": "fake", **changed,
    }  # fmt: skip
    return Batch(**values)


def test_a_batch_is_what_openai_reads() -> None:
    counts: dict[str, Any] = {"total": 9, "completed": 7, "failed": 2, "input_tokens": 70, "cached_tokens": 50}
    shown = batch_object(batch(**counts, completed_at=5.7, metadata={"a": "b"}, output_file_id="file-2"))
    read = OpenAIBatch.model_validate(shown.model_dump(), strict=True)
    assert read.request_counts is not None
    assert read.usage is not None
    assert (read.request_counts.total, read.request_counts.completed, read.request_counts.failed) == (9, 7, 2)
    assert (read.usage.total_tokens, read.usage.input_tokens_details.cached_tokens) == (70, 50)
    assert (read.created_at, read.completed_at, read.failed_at) == (1, 5, None)
    assert (read.metadata, read.output_file_id, read.error_file_id) == ({"a": "b"}, "file-2", None)


def test_a_batch_shows_which_line_is_wrong() -> None:
    error = LineError("invalid_method", "line 3: method must be POST", line=3, param="method")
    shown = batch_object(batch(status=JobStatus.FAILED, errors=(error,))).errors
    assert shown is not None
    assert [one.model_dump() for one in shown.data] == [vars(error)]


def test_a_batch_without_errors_or_metadata_has_null_there() -> None:
    shown = batch_object(batch())
    assert (shown.errors, shown.metadata) == (None, None)


def test_a_file_is_what_openai_reads() -> None:
    read = OpenAIFile.model_validate(
        file_object(StoredFile("file-1", "batch", "näme.jsonl", 12, 1.9, 2.9)).model_dump(), strict=True
    )
    assert (read.filename, read.bytes, read.created_at, read.expires_at) == ("näme.jsonl", 12, 1, 2)


def test_a_file_may_be_kept_for_ever() -> None:
    assert file_object(StoredFile("file-1", "batch", "f", 12, 1.0, None)).expires_at is None


def test_a_batch_has_one_completion_window() -> None:
    with pytest.raises(ValidationError, match="Input should be '24h'"):
        BatchRequest.model_validate({"input_file_id": "x", "endpoint": "/v1/embeddings", "completion_window": "1h"})


@pytest.mark.parametrize(("seconds", "expected"), [(3600, 3600.0), ("7200", 7200.0), (2592000, 2592000.0)])
def test_a_file_may_expire_after_an_hour_to_thirty_days(seconds: Any, expected: float) -> None:
    assert expires_after("created_at", seconds) == expected


def test_without_an_expiry_the_server_decides() -> None:
    assert expires_after(None, None) is None


@pytest.mark.parametrize("seconds", [3599, 2592001, "soon", None, float("nan"), float("inf"), [3600]])
def test_another_expiry_is_refused_with_what_was_sent(seconds: Any) -> None:
    with pytest.raises(BadInputError) as refused:
        expires_after("created_at", seconds)
    assert str(refused.value) == f"expires_after[seconds] must be 3600 to 2592000, not {seconds!r}"


@pytest.mark.parametrize("anchor", ["now", 7, None])
def test_an_expiry_counts_from_the_creation(anchor: Any) -> None:
    with pytest.raises(BadInputError, match=r"expires_after\[anchor\] must be 'created_at', not"):
        expires_after(anchor, 3600)
