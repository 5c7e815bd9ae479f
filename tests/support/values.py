"""Short functions that make the values tests need."""

from dataclasses import replace

import numpy as np

from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.values.model import FingerprintSpec, Producer, Space
from semel.values.vectors import Vectors

PRODUCER = Producer("cpu", "test", "float32")

SPEC = FingerprintSpec(
    kind="embed",
    weights="w1",
    tokenizer="t1",
    architecture="a1",
    pooling="mean",
    normalize=True,
    prompt="",
    max_tokens=256,
    truncate_side="right",
    precision="full",
)


def space(dim: int = 4, **changed: object) -> Space:
    """A vector space of model `m`; `changed` are fields of its fingerprint."""
    spec = replace(SPEC, **changed)  # type: ignore[arg-type]
    return Space(spec.fingerprint, "m", "", dim, spec.max_tokens, spec.precision, spec.canonical_json().decode())


def vectors(n: int, dim: int = 4, *, seed: int = 0) -> Vectors:
    """Random vectors float32 (n, dim): all different, none zero."""
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32) + 0.01


def put(store: VectorStore, texts: list[str], rows: Vectors, *, into: Space | None = None) -> int:
    """Store the vectors of texts; returns how many the cache did not have."""
    where = into or space(rows.shape[1])
    keys = input_keys(where.fingerprint, texts)
    n = len(texts)
    return store.put_many(where, keys, rows, tokens=[3] * n, truncated=[False] * n, producer=PRODUCER)
