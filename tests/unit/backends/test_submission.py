"""Texts on their way: each part reaches its owner, with rows and errors at the right positions."""

import numpy as np
import pytest

from semel.backends.base import Tokens
from semel.backends.batching import Item
from semel.backends.fake import FakeBackend, FakeOptions
from semel.backends.submission import Part, Submission, batch_span, deliver
from semel.errors import BackendError
from semel.tracing import NO_SPAN
from semel.values.text import ItemError

ERROR = ItemError("bad", "a bad text")


def item(owner: Submission, index: int, *, length: int = 2, truncated: bool = False) -> Item:
    return Item(Tokens([7] * length, truncated=truncated), owner, index)


def row(value: float) -> np.ndarray:
    return np.full(3, value, np.float32)


def part(*indices: int, errors: dict[int, ItemError] | None = None) -> Part:
    n = len(indices)
    return Part(list(indices), np.ones((n, 3), np.float32), [2] * n, [False] * n, errors or {})


def parts_of(owner: Submission) -> list[Part]:
    """All parts of a submission; an iteration that waits for more fails instead of hanging."""
    owner.deliver(BackendError("the iteration did not stop"))
    return list(owner)


def test_each_owner_gets_its_own_rows_of_a_shared_batch() -> None:
    one, other = Submission(2), Submission(1)
    items = [item(one, 1, length=4), item(other, 0), item(one, 0, length=5, truncated=True)]
    deliver(items, [row(1), row(2), row(3)])
    (first,), (second,) = parts_of(one), parts_of(other)
    assert (first.indices, first.tokens, first.truncated) == ([1, 0], [4, 5], [False, True])
    assert first.vectors[:, 0].tolist() == [1, 3]
    assert (second.indices, second.vectors[:, 0].tolist()) == ([0], [2])


def test_an_error_has_a_position_and_no_row() -> None:
    owner = Submission(3)
    deliver([item(owner, i) for i in range(3)], [row(1), ERROR, row(3)])
    (only,) = parts_of(owner)
    assert only.indices == [0, 2]
    assert only.vectors[:, 0].tolist() == [1, 3]
    assert only.errors == {1: ERROR}


def test_a_part_of_errors_only_has_no_rows() -> None:
    owner = Submission(1)
    deliver([item(owner, 0)], [ERROR])
    (only,) = parts_of(owner)
    assert (only.indices, only.vectors.shape, only.errors) == ([], (0, 0), {0: ERROR})


def test_a_batch_with_too_few_results_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 2 texts has 1 results"):
        deliver([item(Submission(2), 0), item(Submission(2), 1)], [row(1)])


def test_parts_end_when_every_text_has_a_row_or_an_error() -> None:
    owner = Submission(4)
    for each in (part(3), part(0, errors={1: ERROR}), part(2)):
        owner.deliver(each)
    assert [each.indices for each in parts_of(owner)] == [[3], [0], [2]]


def test_no_texts_have_no_parts() -> None:
    assert parts_of(Submission(0)) == []


def test_parts_before_the_loss_of_the_device_are_delivered() -> None:
    owner = Submission(2)
    owner.deliver(part(0))
    owner.deliver(BackendError("the device is gone"))
    parts = iter(owner)
    assert next(parts).indices == [0]
    with pytest.raises(BackendError, match="the device is gone"):
        next(parts)


def test_cancelling_marks_the_submission() -> None:
    owner = Submission(2, label="job 1", alone=True)
    assert (owner.cancelled, owner.label, owner.alone) == (False, "job 1", True)
    owner.cancel()
    assert owner.cancelled


def test_without_traces_a_batch_has_no_span() -> None:
    class Silent(FakeBackend):
        def get_model_info(self) -> object:  # type: ignore[override]
            pytest.fail("nothing reads the attributes of a span that is off")

    backend = Silent("fake", FakeOptions(), device="cpu")
    assert batch_span(backend, [item(Submission(1), 0)]) is NO_SPAN
