"""The differences between the kinds of device that torch drives, except their dtype."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceTraits:
    """The differences between the kinds of device, except their dtype.

    Attributes:
        max_batch_tokens: padded tokens in a batch. CPU: 1,024 to 2,048 keep the outputs of a layer in the caches (8,192
            costs a fifth of the speed, measured). CUDA and MPS: enough to fill the chip with MiniLM-sized models; an
            out-of-memory error halves it.
        bucketed: batches have few different shapes, because memory grows with each new one (pytorch #132596).
        pinned: copies to the device start from page-locked memory, and no thread waits for them.
        loads_in_any_thread: as for `Backend`; MPS keeps its state in the thread that computes.
    """

    max_batch_tokens: int
    bucketed: bool = False
    pinned: bool = False
    loads_in_any_thread: bool = True


DEVICES = {
    "cpu": DeviceTraits(1536),
    "cuda": DeviceTraits(65536, pinned=True),
    "mps": DeviceTraits(8192, bucketed=True, loads_in_any_thread=False),
}
