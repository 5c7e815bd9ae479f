"""Tiny models of the real classes with random weights, and inputs for them."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, PreTrainedTokenizerFast

from semel.backends.models.source import ModelSource
from semel.settings import BUILT_IN_MODELS
from semel.values.text import Pair
from tests.support.model_files import source

SENTENCES = "the cat sat on mat what is a pet stone dog yes no"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *SENTENCES.split()]
SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "initializer_range": 0.4,  # so that scores differ
}
CHAT = (
    "{% for m in messages %}{% if m['role'] == 'query' %}what {{ m['content'] }} "
    "{% elif m['role'] == 'document' %}the {{ m['content'] }} {% else %}on {{ m['content'] }} {% endif %}{% endfor %}is"
)
TEXTS = [
    "the cat sat on the mat",
    "what is a pet",
    "no stone",
    "a dog is a pet the dog sat",
    " ".join(["cat stone"] * 40),
]
PAIRS = [
    Pair("what is a pet", "the cat"),
    Pair("what is a pet", "a stone on the mat"),
    Pair("the dog", "the cat sat on the mat the cat sat on the mat"),
    Pair("dog", "dog"),
    Pair("what", " ".join(["cat stone"] * 40)),
]


def tokenizer(folder: Path, *, max_tokens: int = 32, **options: Any) -> None:
    """Write the files of a tokenizer that knows WORDS to `folder`."""
    fast = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    if "chat_template" not in options:
        fast.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "sep_token": "[SEP]", "cls_token": "[CLS]"}
    inputs = ["input_ids", "attention_mask"] + ([] if "chat_template" in options else ["token_type_ids"])
    made = PreTrainedTokenizerFast(
        tokenizer_object=fast, **names, model_max_length=max_tokens, model_input_names=inputs, **options
    )
    made.save_pretrained(folder)


def small_bert(folder: Path) -> Path:
    """Write a random BERT with vectors of 32 numbers, MiniLM's tokenizer and at most 64 tokens to `folder`."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.4,
    )
    BertModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(source(BUILT_IN_MODELS["minilm"].source).path / name, folder / name)
    return folder


def reranker(folder: Path, **entry: Any) -> ModelSource:
    """The cross-encoder `m` with the files in `folder`."""
    return source(folder, kind="cross-encoder", **entry)


def encoder(root: Path, kind: str, *, pooling: str, folder: str = "") -> None:
    """Write a random encoder as sentence-transformers does, with a pooling and a normalisation.

    Args:
        kind: `bert`, `roberta` or `xlm-roberta`.
        folder: of the transformer itself, inside `root`.
    """
    torch.manual_seed(7)
    base = root / folder
    AutoModel.from_config(AutoConfig.for_model(kind, **SIZES)).save_pretrained(base)
    tokenizer(base)
    (base / "sentence_bert_config.json").write_text('{"max_seq_length": 32, "do_lower_case": false}')
    modules(root, {folder: "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"})
    settings = {"word_embedding_dimension": SIZES["hidden_size"], "pooling_mode": pooling}
    (root / "1_Pooling" / "config.json").write_text(json.dumps(settings))


def modules(root: Path, kinds: dict[str, str]) -> None:
    """Write modules.json: folder → the name of sentence-transformers' class; the folders are made."""
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (root / "modules.json").write_text(json.dumps(listed))
    for path in kinds:
        (root / path).mkdir(exist_ok=True)
