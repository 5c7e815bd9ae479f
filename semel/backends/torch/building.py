"""Loading a model with transformers while another thread computes. Imports transformers, so import it late."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

from semel.backends.shared import turns


@contextmanager
def building() -> Iterator[None]:
    """Load a model of transformers within the block; models take turns.

    transformers first builds the model without weights, in less than a second. For that time it sets the default dtype
    of the whole process, in which a batch of another model could compute wrong vectors, so no batch may run. Then it
    reads the weights, which takes long and changes nothing that a batch could see.
    """
    logging.disable_progress_bar()  # half a second of "Loading weights", in the middle of the log
    with turns.loading:
        own = vars(PreTrainedModel)["get_init_context"].__func__

        def between_batches(cls: Any, *arguments: Any, **options: Any) -> list[Any]:
            return [turns.computing, *own(cls, *arguments, **options)]

        if "dtype" not in inspect.signature(own).parameters:  # a release that sets it elsewhere: batches wait
            with turns.computing:
                yield
            return
        PreTrainedModel.get_init_context = classmethod(between_batches)
        try:
            yield
        finally:
            PreTrainedModel.get_init_context = classmethod(own)
