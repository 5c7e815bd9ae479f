"""What frameworks cannot do in two threads at once, though one may load a model while another one computes.

Take `loading` before `computing`, or two threads could wait for each other.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

loading = threading.RLock()
"""Held while transformers makes a model: it patches torch and itself for that time, and two threads that do so leave
weights uninitialised (huggingface/transformers #41782, #44940)."""

computing = threading.RLock()
"""Held for a batch, and for what must not happen during one: transformers changes torch's default dtype for the whole
process, and two sessions of ONNX Runtime on WebGPU at once crash (microsoft/onnxruntime #32561)."""


_no_launch = threading.Event()
_no_launch.set()

_LONGEST_LAUNCH_S = 0.05
"""Ten times what the launches of a batch take."""


@contextmanager
def launching() -> Iterator[None]:
    """Launch a batch on a GPU within the block, while threads that `give_way` pause.

    A batch takes some hundred calls, and each gives up Python's lock. Where other threads run Python meanwhile, each
    call waits for one of them, so that a GPU that computes for 10 ms waits for 50.
    """
    _no_launch.clear()
    try:
        yield
    finally:
        _no_launch.set()


def give_way() -> None:
    """Wait until no batch is being launched. Call it before some hundred microseconds of Python."""
    _no_launch.wait(_LONGEST_LAUNCH_S)
