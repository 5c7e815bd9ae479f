"""The sender that computes in this process."""

from dataclasses import replace

import pytest

from semel.errors import UnknownModelError
from semel.tasks.worker.local import LocalSender
from semel.values.text import Lane, Outcome
from tests.support.computing import Device
from tests.support.fleet import SPACE, Fleet


def test_texts_are_computed_in_this_process_for_the_prompt_of_the_space(device: Device, fleet: Fleet) -> None:
    space = device.space("query")
    missing = device.missing("one", "two", prompt_name="query")
    done = LocalSender(device.models, device.embedder).compute(space, missing, lane=Lane.INTERACTIVE)
    assert done.outcomes == dict.fromkeys(missing, Outcome.COMPUTED)
    found = fleet.store.get_many(list(missing), dim=8)
    assert found.vectors is not None
    assert (found.vectors == device.model.backend.embed_texts(["find one", "find two"])).all()


def test_a_model_that_is_not_configured_is_refused(device: Device) -> None:
    sender = LocalSender(device.models, device.embedder)
    with pytest.raises(UnknownModelError, match="'unknown'"):
        sender.compute(replace(SPACE, model="unknown"), {b"k" * 32: "text"}, lane=Lane.BULK)
