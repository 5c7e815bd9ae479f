"""The figures of a run, and the file that keeps them."""

import json
from pathlib import Path

import pytest

from semel.cli.bench.figures import Figure, Run, read_run
from semel.errors import BadInputError

FIGURE = Figure("batches", "32 texts", "cpu", "minilm", "texts/s", [900.0, 1000.0, 1100.0], True, 2000.0, "products")
RUN = Run({"semel": "1.0", "cores": "2"}, [FIGURE], {"m on cuda": "no GPU"})


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    RUN.write(tmp_path / "bench.json")
    assert read_run(tmp_path / "bench.json") == RUN


def test_a_figure_has_the_median_of_its_rounds_and_their_range() -> None:
    assert FIGURE.median == 1000
    assert FIGURE.spread == pytest.approx(0.2)


def test_the_noise_of_a_single_round_is_unknown() -> None:
    assert Figure("start", "", "cpu", "m", "s", [3.0]).spread is None


NO_RUNS = {
    "no JSON": b"{",
    "a list": b"[]",
    "nothing of a run": b"{}",
    "no UTF-8": b"\xff",
    "a figure without values": json.dumps({"format": 1, "about": {}, "left_out": {}, "figures": [["a"]]}).encode(),
    "a figure of no rounds": json.dumps(
        {
            "format": 1,
            "about": {},
            "left_out": {},
            "figures": [{"group": "", "name": "", "device": "", "model": "", "unit": "", "values": []}],
        }
    ).encode(),
}


@pytest.mark.parametrize("content", NO_RUNS.values(), ids=NO_RUNS)
def test_another_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"other\.json is no result of 'semel bench'"):
        read_run(path)


def test_a_file_of_another_format_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "newer.json"
    path.write_text('{"format": 2}')
    with pytest.raises(BadInputError, match="has format 2, and this version reads 1: measure again"):
        read_run(path)
