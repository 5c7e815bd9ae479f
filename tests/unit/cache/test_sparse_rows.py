"""Sparse vectors in the cache: nothing is lost, and damage is found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semel.cache.codec import decode_into, encode, has_size, is_sound
from semel.cache.keys import input_keys
from semel.cache.stats import verify
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import InvalidVectorError
from semel.values.sparse import SPARSE_DIM, SparseVector, sparse_rows
from semel.values.vectors import AnyVectors, empty_rows
from tests.support.values import PRODUCER, space

SPACE = space(SPARSE_DIM, kind="sparse", pooling='{"stored":"sparse"}', normalize=False)
WEIGHTS = st.floats(-1000, 1000, width=16).filter(bool)
VECTORS = st.dictionaries(st.integers(0, 2**32 - 1), WEIGHTS, max_size=20)


def vector(entries: dict[int, float]) -> SparseVector:
    indices = sorted(entries)
    return SparseVector(np.array(indices, np.uint32), np.array([entries[i] for i in indices], np.float32))


def entries(row: SparseVector) -> dict[int, float]:
    return dict(zip(row.indices.tolist(), row.values.tolist(), strict=True))


def decoded(blobs: list[bytes]) -> AnyVectors:
    out = empty_rows(len(blobs), SPARSE_DIM)
    decode_into(out, range(len(blobs)), blobs)
    return out


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@given(given=st.lists(VECTORS, max_size=5))
def test_a_vector_comes_back_as_it_was(dtype: str, given: list[dict[int, float]]) -> None:
    rows = sparse_rows(vector(each) for each in given)
    blobs = encode(rows, dim=SPARSE_DIM, dtype=dtype)
    assert [entries(row) for row in decoded(blobs)] == given
    assert all(is_sound(blob, dim=SPARSE_DIM) for blob in blobs)


def test_small_vocabularies_take_two_bytes_for_an_index() -> None:
    small, large = vector({7: 1.0, 30_521: 2.0}), vector({7: 1.0, 250_001: 2.0})
    sizes = [len(blob) for blob in encode(sparse_rows([small, large]), dim=SPARSE_DIM, dtype="float32")]
    assert sizes == [2 + 2 * (2 + 4), 2 + 2 * (4 + 4)]
    assert len(encode(sparse_rows([small]), dim=SPARSE_DIM, dtype="float16")[0]) == 2 + 2 * (2 + 2)


@pytest.mark.parametrize(
    "bad",
    [
        SparseVector(np.array([1], np.uint32), np.array([np.nan], np.float32)),
        SparseVector(np.array([1], np.uint32), np.array([np.inf], np.float32)),
        SparseVector(np.array([2, 1], np.uint32), np.array([1, 1], np.float32)),
        SparseVector(np.array([1, 1], np.uint32), np.array([1, 1], np.float32)),
        SparseVector(np.array([1, 2], np.uint32), np.array([1], np.float32)),
    ],
    ids=["NaN", "infinite", "descending", "repeated", "lengths"],
)
def test_a_vector_that_cannot_be_right_is_not_stored(db: Database, bad: SparseVector) -> None:
    store, rows = VectorStore(db), sparse_rows([vector({1: 2.0}), bad])
    keys = input_keys(SPACE.key_base, ["good", "bad"])
    with pytest.raises(InvalidVectorError, match=r"is not finite|do not ascend"):
        store.put_many(SPACE, keys, rows, tokens=[1, 1], truncated=[False, False], producer=PRODUCER)
    assert not store.lookup(keys).present.any()


def test_a_weight_beyond_float16_is_refused_and_says_what_to_do(db: Database) -> None:
    with pytest.raises(InvalidVectorError, match="set SEMEL_VECTOR_DTYPE=float32"):
        encode(sparse_rows([vector({1: 1e6})]), dim=SPARSE_DIM, dtype="float16")


def test_rows_are_read_in_the_order_of_the_keys_with_repetitions_and_gaps(db: Database) -> None:
    store = VectorStore(db)
    first, second, missing = input_keys(SPACE.key_base, ["first", "second", "missing"])
    rows = sparse_rows([vector({1: 1.0}), vector({2: 2.0, 3: 3.0})])
    store.put_many(SPACE, [first, second], rows, tokens=[4, 5], truncated=[False, True], producer=PRODUCER)
    found = store.get_many([second, missing, first, second], dim=SPARSE_DIM)
    assert found.vectors is not None
    assert found.present.tolist() == [True, False, True, True]
    assert [None if row is None else entries(row) for row in found.vectors] == [
        {2: 2.0, 3: 3.0},
        None,
        {1: 1.0},
        {2: 2.0, 3: 3.0},
    ]
    assert found.tokens.tolist()[::2] == [5, 4]


def test_a_vector_without_entries_is_a_vector(db: Database) -> None:
    store, (key,) = VectorStore(db), input_keys(SPACE.key_base, ["nothing that the model weighs"])
    store.put_many(SPACE, [key], sparse_rows([vector({})]), tokens=[3], truncated=[False], producer=PRODUCER)
    found = store.get_many([key], dim=SPARSE_DIM)
    assert found.vectors is not None
    assert entries(found.vectors[0]) == {}


@pytest.mark.parametrize("data", [b"", b"\2", b"\3\4", b"\2\5", b"\2\4abc", b"\0\0"])
def test_bytes_of_no_vector_are_no_vector(data: bytes) -> None:
    assert not has_size(data, dim=SPARSE_DIM)
    assert not is_sound(data, dim=SPARSE_DIM)


def test_damage_is_found(db: Database) -> None:
    store, (key,) = VectorStore(db), input_keys(SPACE.key_base, ["text"])
    store.put_many(SPACE, [key], sparse_rows([vector({1: 1.0})]), tokens=[1], truncated=[False], producer=PRODUCER)
    with db.write() as conn:
        conn.exec_driver_sql("UPDATE vectors SET data = X'0204010000000040'")
    *_, state = verify(db, store)
    assert state.damaged == [key]
    assert not store.get_many([key], dim=SPARSE_DIM).present.any()
