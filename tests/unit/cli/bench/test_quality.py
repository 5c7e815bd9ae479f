"""How far the devices of a machine agree."""

import numpy as np
import pytest

from semel.cli.bench.run import _quality


def test_each_pair_of_devices_has_its_cosines_and_the_agreement_of_its_ranks() -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(size=(8, 16)).astype(np.float32)
    near = one + rng.normal(scale=0.01, size=one.shape).astype(np.float32)
    found = {(f.device, f.name): f.median for f in _quality("m", {"cpu": one, "cuda": near, "mlx": one[::-1]})}
    assert len(found) == 3 * 3
    assert found["cpu, cuda", "lowest cosine"] > 0.999
    assert found["cpu, cuda", "agreement of ranks (Spearman)"] > 0.9
    assert found["cpu, mlx", "mean cosine"] < 0.5
    assert found["cpu, mlx", "agreement of ranks (Spearman)"] < 0.5


def test_equal_vectors_agree_entirely() -> None:
    rows = np.random.default_rng(2).normal(size=(8, 16)).astype(np.float32)
    for figure in _quality("m", {"cpu": rows, "cuda": rows.copy()}):
        assert figure.median == pytest.approx(1)
        assert figure.higher_is_better


def test_one_device_agrees_with_none() -> None:
    assert _quality("m", {"cpu": np.ones((8, 16), np.float32)}) == []
