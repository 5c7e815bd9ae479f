"""The differences between the kinds of device that torch drives, except their dtype."""

from dataclasses import dataclass

_MOST_TOKENIZERS = 12
"""More processes than this tokenise faster than the rest of a worker can follow (docs/explanation/performance.md)."""


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
        outruns_python: the device is faster than one process of Python can tokenise for it.
    """

    max_batch_tokens: int
    bucketed: bool = False
    pinned: bool = False
    loads_in_any_thread: bool = True
    outruns_python: bool = False

    @property
    def tokenize_at_once(self) -> int:
        """As for `Backend`: enough for all tokenizer processes, where there are any."""
        return 2048 if self.outruns_python else 256

    def tokenizer_processes(self, cores: int) -> int:
        """How many processes tokenise on a machine of `cores` cores; 0 for none.

        Two cores are left to the thread that drives the device, and to the rest of the worker.
        """
        return min(_MOST_TOKENIZERS, max(0, cores - 2)) if self.outruns_python else 0


DEVICES = {
    "cpu": DeviceTraits(1536),
    "cuda": DeviceTraits(65536, pinned=True, outruns_python=True),
    "mps": DeviceTraits(8192, bucketed=True, loads_in_any_thread=False),
}
