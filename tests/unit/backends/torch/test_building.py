"""A model is loaded while another one computes, and neither sees what transformers changes in the process."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, PreTrainedModel

from semel.backends.base import Tokens
from semel.backends.shared import turns
from semel.backends.torch.backend import TorchBackend
from semel.backends.torch.building import building
from tests.support.model_files import source, write_model


class Computing(TorchBackend):
    """A backend that records the default dtype of the process in each batch."""

    def __init__(self, folder: Path) -> None:
        super().__init__(source(write_model(folder)), device="cpu", threads=1)
        self._torch = torch
        self.seen: list[torch.dtype] = []
        self.computed = threading.Event()

    def _pooled(self, batch: Sequence[Tokens]) -> Any:
        self.seen.append(torch.get_default_dtype())
        self.computed.set()
        return torch.ones(len(batch), 2)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    config = BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_no_batch_runs_while_the_default_dtype_of_the_process_is_changed(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, build, changed = Computing(tmp_path / "other"), BertModel.__init__, list[torch.dtype]()
    batches = threading.Thread(target=backend.forward, args=([Tokens([1], truncated=False)],))

    def slowly(model: BertModel, *arguments: Any, **options: Any) -> None:
        changed.append(torch.get_default_dtype())
        batches.start()
        backend.computed.wait(0.5)  # a batch that need not wait ends long before
        build(model, *arguments, **options)

    monkeypatch.setattr(BertModel, "__init__", slowly)
    with building():
        BertModel.from_pretrained(saved, dtype=torch.bfloat16)
    batches.join(10)
    assert changed == [torch.bfloat16]
    assert backend.seen == [torch.float32]


def test_batches_run_while_the_weights_are_read(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, read = Computing(tmp_path / "other"), PreTrainedModel._load_pretrained_model
    batches = threading.Thread(target=backend.forward, args=([Tokens([1], truncated=False)],))

    def slowly(*arguments: Any, **options: Any) -> Any:
        batches.start()
        assert backend.computed.wait(10)
        return read(*arguments, **options)

    monkeypatch.setattr(PreTrainedModel, "_load_pretrained_model", slowly)
    with building():
        BertModel.from_pretrained(saved, dtype=torch.bfloat16)
    batches.join(10)


def test_one_model_is_built_at_a_time_and_transformers_is_as_before() -> None:
    own, free = vars(PreTrainedModel)["get_init_context"].__func__, list[bool]()

    def look() -> None:
        free.append(turns.loading.acquire(blocking=False))
        if free[-1]:
            turns.loading.release()

    with building():
        looking = threading.Thread(target=look)
        looking.start()
        looking.join()
    look()
    assert free == [False, True]
    assert vars(PreTrainedModel)["get_init_context"].__func__ is own
