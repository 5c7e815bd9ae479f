"""Options that several commands share."""

import pytest

from semel.cli.commands.options import device_or_setting
from semel.settings import load_settings


@pytest.mark.parametrize(
    ("option", "setting", "device"), [("auto", "mps", "mps"), ("cuda:1", "mps", "cuda:1"), ("auto", "auto", "auto")]
)
def test_the_option_wins_over_the_setting(option: str, setting: str, device: str) -> None:
    assert device_or_setting(option, load_settings(device=setting)) == device
