"""Vectors as bytes and back."""

import numpy as np
import pytest

from semel.cache.codec import checksum, decode_into, encode, has_size
from semel.errors import InvalidVectorError
from semel.values.vectors import Vectors
from tests.support.values import vectors


def test_float32_comes_back_bit_for_bit() -> None:
    rows = vectors(3)
    out = np.empty_like(rows)
    decode_into(out, [2, 0, 1], encode(rows, dim=4, dtype="float32"))
    assert (out[[2, 0, 1]] == rows).all()


def test_the_length_of_a_blob_determines_its_dtype() -> None:
    rows = vectors(4)
    wide, narrow = encode(rows, dim=4, dtype="float32"), encode(rows, dim=4, dtype="float16")
    out = np.empty_like(rows)
    decode_into(out, [0, 1, 2, 3], [wide[0], narrow[1], wide[2], narrow[3]])
    assert (out[[0, 2]] == rows[[0, 2]]).all()
    np.testing.assert_allclose(out, rows, rtol=1e-3)


def test_the_bytes_are_little_endian_float32() -> None:
    assert encode(np.array([[1.0, -2.0]], np.float32), dim=2, dtype="float32") == [b"\0\0\x80?\0\0\0\xc0"]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (np.full((1, 4), np.nan, np.float32), "not finite"),
        (np.array([[1, 2, np.inf, 4]], np.float32), "not finite"),
        (np.zeros((1, 4), np.float32), "all zero"),
        (np.ones((1, 3), np.float32), r"\(1, 3\)"),
        (np.ones(4, np.float32), r"\(4,\)"),
    ],
)
def test_an_invalid_vector_is_refused(rows: Vectors, why: str) -> None:
    with pytest.raises(InvalidVectorError, match=why):
        encode(rows, dim=4, dtype="float32")


def test_a_value_beyond_float16_is_refused_not_made_infinite() -> None:
    with pytest.raises(InvalidVectorError, match="float16"):
        encode(np.full((1, 4), 1e6, np.float32), dim=4, dtype="float16")


def test_the_checksum_covers_key_and_bytes() -> None:
    assert len({checksum(b"k1", b"data"), checksum(b"k2", b"data"), checksum(b"k1", b"datb")}) == 3


def test_float16_vectors_are_read_as_float32() -> None:
    rows = np.array([[1.0, -2.0, 0.5, 65504.0]], np.float32)  # exact in float16
    blobs = encode(rows, dim=4, dtype="float16")
    out = np.empty_like(rows)
    decode_into(out, [0], blobs)
    assert [len(blob) for blob in blobs] == [8]
    assert (out == rows).all()


def test_rows_that_are_not_decoded_stay_as_they_were() -> None:
    out = np.full((3, 4), np.nan, np.float32)
    rows = vectors(1)
    decode_into(out, [1], encode(rows, dim=4, dtype="float32"))
    assert (out[1] == rows[0]).all()
    assert np.isnan(out[[0, 2]]).all()


def test_a_view_with_strides_is_encoded_like_its_copy() -> None:
    wide = vectors(3, 8)
    assert encode(wide[:, ::2], dim=4, dtype="float32") == encode(wide[:, ::2].copy(), dim=4, dtype="float32")


def test_the_message_names_the_first_bad_row() -> None:
    rows = vectors(4)
    rows[2, 1] = np.inf
    rows[3] = 0
    with pytest.raises(InvalidVectorError, match="vector 2 of 4 is not finite"):
        encode(rows, dim=4, dtype="float32")


def test_no_vectors_give_no_blobs() -> None:
    assert encode(np.empty((0, 4), np.float32), dim=4, dtype="float32") == []


def test_a_score_may_be_zero() -> None:
    assert encode(np.zeros((1, 1), np.float32), dim=1, dtype="float32") == [b"\0\0\0\0"]


@pytest.mark.parametrize(("size", "right"), [(16, True), (8, True), (0, False), (4, False), (12, False), (17, False)])
def test_a_vector_of_four_numbers_has_one_of_two_sizes(size: int, right: bool) -> None:
    assert has_size(bytes(size), dim=4) is right
