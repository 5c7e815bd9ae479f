"""The progress bar writes to stderr, and only if it is visible."""

import pytest

from semel.client.progress import progress_bar
from semel.client.records import job_of
from tests.support.remote import job


def test_the_bar_shows_the_model_the_counts_and_the_hits(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"total": 4, "hit": 2, "computed": 1, "coalesced": 0, "failed": 0, "truncated": 0, "tokens": 9}
    with progress_bar(visible=True) as show:
        show(job_of(job("in_progress", counts=counts)))
    captured = capsys.readouterr()
    assert captured.out == "", "stdout is for results"
    for shown in ("fake", "3/4", "2 hits"):
        assert shown in captured.err


def test_an_invisible_bar_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(visible=False) as show:
        show(job_of(job()))
    assert capsys.readouterr() == ("", "")
