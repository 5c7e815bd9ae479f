"""The number types in which vectors are returned."""

import base64

import numpy as np
import pytest

from semel.api.dialects.number_types import NumberType, as_base64, quantized
from semel.values.vectors import Vectors
from tests.support.values import vectors

UNIT: Vectors = np.array([[0.6, -0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0, 0, 0, 0, 0, 0, 0, 1]], np.float32)


@pytest.mark.parametrize(
    ("kind", "rows", "dtype"),
    [
        ("float", UNIT.tolist(), np.float32),
        ("int8", [[76, -102, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 127]], np.int8),
        ("uint8", [[204, 26, 128, 128, 128, 128, 128, 128], [128, 128, 128, 128, 128, 128, 128, 255]], np.uint8),
        ("ubinary", [[0b10000000], [0b00000001]], np.uint8),
        ("binary", [[0], [-127]], np.int8),
    ],
)
def test_vectors_in_every_number_type(kind: NumberType, rows: list[list[float]], dtype: type) -> None:
    numbers = quantized(UNIT, kind)
    assert (numbers.tolist(), numbers.dtype) == (rows, dtype)


def test_a_vector_is_scaled_to_length_1_before_it_is_rounded() -> None:
    assert np.array_equal(quantized(UNIT * 7, "int8"), quantized(UNIT, "int8"))


@pytest.mark.parametrize("kind", ["int8", "uint8", "binary", "ubinary"])
def test_a_vector_does_not_depend_on_its_neighbours(kind: NumberType) -> None:
    rows = vectors(20, 16)
    together = quantized(rows, kind)
    assert all(np.array_equal(quantized(rows[i : i + 1], kind)[0], together[i]) for i in range(20))


@pytest.mark.parametrize(("kind", "low", "high"), [("int8", -127, 127), ("uint8", 1, 255), ("binary", -128, 127)])
def test_the_extremes_keep_their_sign(kind: NumberType, low: int, high: int) -> None:
    axes = np.concatenate([np.eye(8), -np.eye(8), np.ones((1, 8)), -np.ones((1, 8))]).astype(np.float32)
    numbers = quantized(axes, kind)
    assert (numbers.min(), numbers.max()) == (low, high)


@pytest.mark.parametrize(("kind", "dtype"), [("float", "<f4"), ("int8", "i1"), ("uint8", "u1"), ("ubinary", "u1")])
def test_base64_holds_the_numbers_of_each_row(kind: NumberType, dtype: str) -> None:
    numbers = quantized(UNIT, kind)
    read = [np.frombuffer(base64.b64decode(row), dtype) for row in as_base64(numbers)]
    assert np.array_equal(np.stack(read), numbers)


def test_base64_is_little_endian_whatever_the_array_is() -> None:
    assert as_base64(UNIT.astype(">f4")) == as_base64(UNIT)
    assert base64.b64decode(as_base64(np.array([[1.0]], np.float32))[0]) == b"\x00\x00\x80\x3f"


def test_the_part_of_a_larger_array_is_encoded_alone() -> None:
    rows = vectors(3, 8)
    assert as_base64(rows[:, :2]) == as_base64(rows[:, :2].copy())
