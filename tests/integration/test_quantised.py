"""int8 and int4 weights on torch: vectors close to full precision, reproducible, and independent of the batch."""

import numpy as np
import pytest

from semel.backends.base import Backend
from semel.backends.models.factory import create_backend
from semel.cli.work.docstrings import standard_library_docstrings
from semel.errors import ModelLoadError
from semel.settings import BUILT_IN_MODELS
from tests.support.tiny_models import reranker, source

TEXTS = [text[:400] for text in sorted({d.text for d in standard_library_docstrings()})[::150]]

LOWEST = {"int8": 0.99, "int4": 0.90}
"""The lowest mean cosine with float32, for real sentences; a small model loses most: docs/reference/precision.md."""


def loaded(precision: str) -> Backend:
    backend = create_backend(source(BUILT_IN_MODELS["minilm"].source, precision=precision), "cpu")
    backend.load()
    return backend


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised_weights_stay_close_to_the_full_ones(
    precision: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    speedup = 4.0 if dtype == "bfloat16" else 1.0  # the test must not depend on the load of this machine
    monkeypatch.setattr("semel.backends.torch.dtype._bfloat16_speedup", lambda _torch: speedup)
    full, small = loaded("float32"), loaded(precision)
    one, other = full.embed_texts(TEXTS), small.embed_texts(TEXTS)
    cosines = (one * other).sum(axis=1)
    assert cosines.mean() > LOWEST[precision]
    assert cosines.min() < 0.99999, "nothing was quantised"
    assert f"{precision} weights in 3" in small.get_model_info().why  # 36 layers, and the pooler if it is kept
    again = loaded(precision)
    np.testing.assert_array_equal(again.embed_texts(TEXTS), other)
    alone = np.vstack([small.embed_texts([text]) for text in TEXTS])
    assert (alone * other).sum(axis=1).min() > 0.999
    assert small.get_model_info().weight_bytes < 0.75 * full.get_model_info().weight_bytes


def test_each_precision_is_its_own_vector_space() -> None:
    specs = {p: source(BUILT_IN_MODELS["minilm"].source, precision=p).described.spec for p in ("full", "int8", "int4")}
    assert len({spec.canonical_json() for spec in specs.values()}) == 3


def test_a_cross_encoder_is_not_quantised() -> None:
    with pytest.raises(ModelLoadError, match="cross-encoder is not quantised"):
        create_backend(reranker(source(BUILT_IN_MODELS["minilm"].source).path, precision="int8"), "cpu")._build(None)  # type: ignore[attr-defined]
