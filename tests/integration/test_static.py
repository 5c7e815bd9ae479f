"""Static embeddings give the vectors of sentence-transformers, as a model like any other."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from tokenizers import Tokenizer

from semel.backends.models.factory import check_runs, create_backend
from semel.chunking import Chunker
from semel.errors import ModelLoadError, SemelError
from semel.local import Local
from semel.settings import load_settings
from semel.values.model import Precision
from semel.values.sync import ChunkOptions
from tests.support.model_files import source

TEXTS = ["The cat sat on the mat.", "a", "Überraschung! 漢字", "the cat sat on the mat. " * 400]


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformer:
    """all-MiniLM-L6-v2, of which the tests distil their tables."""
    path = load_settings().all_models["minilm"]
    return SentenceTransformer(str(source(path.source).path), device="cpu")


@pytest.fixture(scope="module", params=["sentence-transformers", "model2vec"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, minilm: Any) -> Path:
    """A model folder in the layout of one of the libraries: the rows of MiniLM's own table, cut to 64 numbers."""
    root: Path = tmp_path_factory.mktemp("static")
    rows = minilm[0].auto_model.embeddings.word_embeddings.weight.detach()[:, :64].contiguous()
    tokenizer = Tokenizer.from_str(minilm.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    if request.param == "sentence-transformers":
        SentenceTransformer(modules=[StaticEmbedding(tokenizer, rows), Normalize()]).save(str(root))
        return root
    tokenizer.save(str(root / "tokenizer.json"))
    save_file({"embeddings": rows}, root / "model.safetensors")
    (root / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True, "hidden_dim": 64}))
    kinds = ("StaticEmbedding", "Normalize")
    paths = (".", "1_Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (root / "modules.json").write_text(json.dumps(modules))
    return root


def test_vectors_are_those_of_the_library(folder: Path) -> None:
    backend = create_backend(source(folder), "cpu")
    backend.load()
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(backend.embed_texts(TEXTS), expected, atol=1e-6)
    info = backend.get_model_info()
    assert (info.dim, info.dtype, info.normalizes) == (64, "float32", True)
    assert not any(tokens.truncated for tokens in backend.tokenize(TEXTS))
    backend.close()


@pytest.fixture
def local(folder: Path, tmp_path: Path) -> Iterator[Local]:
    entry = {"table": {"source": str(folder)}}
    with Local(settings=load_settings(home=tmp_path, models=entry, default_model="table"), device="cpu") as here:
        yield here


def test_it_is_embedded_and_cached_like_any_other(local: Local, folder: Path) -> None:
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    for _ in range(2):
        np.testing.assert_allclose(local.embed(TEXTS), expected, atol=1e-6)


def test_a_text_without_tokens_is_an_error_and_no_vector(local: Local) -> None:
    with pytest.raises(SemelError, match="NaN or zero"):
        local.embed(["the cat", "\u200b"])


def test_texts_are_split_by_its_tokens(folder: Path) -> None:
    pieces = Chunker(source(folder), ChunkOptions(tokens=20)).pieces("the cat sat on the mat. " * 20)
    backend = create_backend(source(folder), "cpu")
    backend.load()
    assert len(pieces) == 8
    assert all(len(tokens.ids) <= 20 for tokens in backend.tokenize([piece.text for piece in pieces]))
    backend.close()


def test_a_limit_in_the_file_of_the_tokenizer_holds(folder: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    shutil.copytree(folder, short)
    (file,) = short.rglob("tokenizer.json")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(16)
    tokenizer.save(str(file))
    backend = create_backend(source(short), "cpu")
    backend.load()
    expected = SentenceTransformer(str(short), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(backend.embed_texts(TEXTS), expected, atol=1e-6)
    assert backend.tokenize(TEXTS)[-1].truncated
    backend.close()


def test_a_limit_of_the_entry_cuts_texts(folder: Path) -> None:
    backend = create_backend(source(folder, max_tokens=8), "cpu")
    backend.load()
    assert [len(tokens.ids) for tokens in backend.tokenize(TEXTS)][-1] == 8
    assert backend.tokenize(TEXTS)[-1].truncated
    backend.close()


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ({"kind": "cross-encoder"}, "cross-encoder"),
        ({"pooling": "cls"}, "pooling"),
        ({"precision": Precision.INT8}, "int8"),
    ],
)
def test_what_does_not_apply_is_refused(folder: Path, entry: dict[str, Any], what: str) -> None:
    with pytest.raises(ModelLoadError, match=what):
        source(folder, **entry).described  # noqa: B018


@pytest.mark.parametrize("device", ["mlx", "vulkan:0"])
def test_devices_without_a_backend_for_it_say_which_devices_have_one(folder: Path, device: str) -> None:
    with pytest.raises(ModelLoadError, match="static embeddings; start a worker with --device cpu"):
        check_runs(source(folder), device)
