"""What a cross-encoder must be."""

from pathlib import Path
from typing import Any

import pytest

from semel.backends.shared.scoring import check_one_score
from semel.errors import ModelLoadError
from tests.support.model_files import source, write_model


def test_a_model_with_one_label_gives_a_score(tmp_path: Path) -> None:
    check_one_score(source(write_model(tmp_path, id2label={"0": "LABEL_0"})))


@pytest.mark.parametrize(
    ("config", "classes"),
    [({"id2label": {"0": "no", "1": "maybe", "2": "yes"}}, 3), ({}, 2), ({"id2label": None}, 2), ({"id2label": {}}, 2)],
)
def test_a_classifier_of_several_classes_is_refused(tmp_path: Path, config: dict[str, Any], classes: int) -> None:
    with pytest.raises(ModelLoadError, match=f"sorts pairs into {classes} classes and gives no score"):
        check_one_score(source(write_model(tmp_path, **config)))
