"""The contract of every backend. To test another backend, add a parameter."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from semel.backends.base import Backend
from semel.backends.calls import Call
from semel.backends.models.digests import Digests
from semel.backends.models.factory import create_backend
from semel.backends.models.source import find_model
from semel.settings import BUILT_IN_MODELS
from semel.values.model import ModelEntry, Precision

TEXTS = ["one", "a somewhat longer text about cats", "", "ﬁ ünïcode 漢字 🙂", "one", "word " * 2000]

DRIFT = 0.999
"""The lowest cosine between a text alone and the same text in a batch."""


BACKENDS = {
    "fake": ("cpu", ModelEntry("fake:?dim=16")),
    "torch": ("cpu", BUILT_IN_MODELS["minilm"]),
    "torch-int8": ("cpu", replace(BUILT_IN_MODELS["minilm"], precision=Precision.INT8)),
    "torch-int4": ("cpu", replace(BUILT_IN_MODELS["minilm"], precision=Precision.INT4)),
    "torch-cuda": ("cuda:0", BUILT_IN_MODELS["minilm"]),
    "mlx": ("mlx", None),
    "vulkan": ("vulkan:0", None),
}
"""Device and entry; None for a small random model, because the imitated device is slow."""


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    device, entry = BACKENDS[request.param]
    if device.startswith("vulkan"):
        request.getfixturevalue("vulkan")
    if device.startswith("cuda"):
        request.getfixturevalue("cuda")
    if entry is None:
        from tests.support.tiny_models import small_bert  # it imports transformers, which takes seconds

        entry = ModelEntry(str(small_bert(tmp_path_factory.mktemp("small"))))
    source = find_model("m", {"m": entry}, models_dir=None, digests=Digests(None))
    backend = create_backend(source, device, converted=tmp_path_factory.mktemp("converted"))
    if backend.loads_in_any_thread:
        Call(backend.load).run_aside("load")
    else:
        backend.load()
    yield backend
    backend.close()


def test_each_text_gives_one_row_in_order(backend: Backend) -> None:
    vectors = backend.embed_texts(TEXTS)
    info = backend.get_model_info()
    assert vectors.shape == (len(TEXTS), info.dim)
    assert vectors.dtype == np.float32
    alone = np.vstack([backend.embed_texts([text]) for text in TEXTS])
    cosine = (vectors * alone).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(alone, axis=1)
    assert cosine.min() >= DRIFT


def test_swapping_the_texts_swaps_the_rows(backend: Backend) -> None:
    there, back = backend.embed_texts(TEXTS), backend.embed_texts(TEXTS[::-1])
    cosine = (there * back[::-1]).sum(1)
    assert cosine.min() >= DRIFT * np.linalg.norm(there, axis=1).min() ** 2
    assert not np.allclose(there[0], there[1], atol=1e-2)


def test_equal_texts_give_equal_rows(backend: Backend) -> None:
    vectors = backend.embed_texts(TEXTS)
    assert (vectors[0] == vectors[4]).all()


def test_the_same_batch_gives_the_same_bits(backend: Backend) -> None:
    assert (backend.embed_texts(TEXTS) == backend.embed_texts(TEXTS)).all()


def test_every_row_is_finite_and_not_zero(backend: Backend) -> None:
    vectors = backend.embed_texts(TEXTS)
    assert np.isfinite(vectors).all()
    assert vectors.any(axis=1).all()


def test_truncation_is_reported_and_bounded(backend: Backend) -> None:
    tokens = backend.tokenize(TEXTS)
    assert [t.truncated for t in tokens] == [False] * 5 + [True]
    assert len(tokens[5].ids) == backend.get_model_info().max_tokens


def test_a_prompt_changes_the_vector(backend: Backend) -> None:
    plain, prompted = backend.embed_texts(["cats"]), backend.embed_texts(["cats"], prompt="query: ")
    assert not np.allclose(plain, prompted, atol=1e-3)
    assert np.allclose(prompted, backend.embed_texts(["query: cats"]), atol=1e-6)


def test_documents_are_ranked_by_cosine(backend: Backend) -> None:
    scores = backend.rerank_documents("one", ["something else entirely", "one"])
    assert scores.shape == (2,)
    assert scores.argmax() == 1
    assert scores[1] == pytest.approx(1, abs=1e-2)


def test_a_healthy_backend_passes_its_check(backend: Backend) -> None:
    assert backend.warm_up()
    backend.health_check()


def test_the_model_info_explains_its_choices(backend: Backend) -> None:
    info = backend.get_model_info()
    assert info.why
    assert info.max_batch_tokens >= 16
