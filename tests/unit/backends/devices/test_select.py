"""Which device is chosen, with which reason."""

from pathlib import Path

import pytest

from semel.backends.devices import select
from semel.backends.devices.select import Measurements, choose_device, find_device
from semel.errors import UnknownDeviceError
from semel.values.device import KINDS, ORDERS, DeviceInfo, Measured, UseCase, best_of
from semel.values.model import ModelEntry, for_device


def device(name: str, *, usable: bool = True, software: bool = False) -> DeviceInfo:
    return DeviceInfo(name, usable=usable, why=f"why {name}", software=software)


ALL = [device(name) for name in ("cpu", "mps", "vulkan:0", "cuda:0", "cuda:1", "mlx")]


@pytest.mark.parametrize(
    ("use_case", "first"),
    [
        ("auto", "mlx"),
        ("low_latency", "mlx"),
        ("high_throughput", "cuda:0"),
        ("memory_efficient", "mlx"),
        ("cross_platform", "vulkan:0"),
    ],
)
def test_each_use_case_has_its_own_order(use_case: UseCase, first: str) -> None:
    chosen, why = choose_device("auto", ALL, use_case=use_case)
    assert chosen == first
    assert f"why {first}" in why
    assert all(kind in why for kind in KINDS)


def test_every_order_names_every_kind() -> None:
    assert all(sorted(order) == sorted(KINDS) for order in ORDERS.values())


def test_the_next_kind_is_chosen_if_the_first_is_not_usable() -> None:
    left = [device("mlx", usable=False), device("cuda:0", usable=False), *ALL[:3]]
    assert choose_device("auto", left)[0] == "vulkan:0"


def test_measurements_decide_if_all_devices_have_some() -> None:
    here = [device("mps"), device("cpu")]
    figures = {"mps": Measured("m", 900, 1.0), "cpu": Measured("m", 1200, 3.0)}
    assert choose_device("auto", here, measured=figures) == (
        "cpu",
        "the fastest measured here: mps 900 texts/s, cpu 1,200 texts/s (why cpu)",
    )
    assert choose_device("auto", here, measured=figures, use_case="low_latency")[0] == "mps"
    assert (
        choose_device("auto", here, measured={"cpu": figures["cpu"]})[0] == "mps"
    )  # the figures of one of two decide nothing


def test_an_imitated_gpu_is_chosen_only_if_nothing_else_is_usable() -> None:
    here = [device("mlx", software=True), device("vulkan:0", software=True), device("cpu")]
    assert choose_device("auto", here)[0] == "cpu"
    assert choose_device("vulkan", here) == ("vulkan:0", "requested")
    assert choose_device("auto", here[:2])[0] == "mlx"


@pytest.mark.parametrize(("requested", "chosen"), [("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")])
def test_a_name_or_a_kind_is_used_as_requested(requested: str, chosen: str) -> None:
    assert choose_device(requested, ALL) == (chosen, "requested")


def test_the_error_for_a_missing_device_gives_the_reason_and_the_usable_devices() -> None:
    with pytest.raises(UnknownDeviceError, match=r"'mlx' cannot be used: why mlx \(usable here: cpu\)"):
        choose_device("mlx", [device("mlx", usable=False), device("cpu")])
    with pytest.raises(UnknownDeviceError, match="knows no such device"):
        choose_device("abacus", ALL)
    with pytest.raises(UnknownDeviceError, match="no device is usable here: cpu: why cpu"):
        choose_device("auto", [device("cpu", usable=False)])


def test_device_pools_are_ranked_like_devices() -> None:
    assert best_of({"cpu", "vulkan"}, use_case="auto", measured={})[0] == "vulkan"
    assert best_of({"cpu"}, use_case="high_throughput", measured={})[0] == "cpu"


def test_measurements_are_kept(tmp_path: Path) -> None:
    file = Measurements(tmp_path / "deep" / "devices.json")
    assert file.read() == {}
    file.write({"cpu": Measured("minilm", 1.5, 2.5)})
    assert file.read() == {"cpu": Measured("minilm", 1.5, 2.5)}
    (tmp_path / "deep" / "devices.json").write_text('{"cpu": {"speed": 3}}')
    assert file.read() == {}


def test_figures_are_kept_for_each_model(tmp_path: Path) -> None:
    file = Measurements(tmp_path / "devices.json")
    file.write({"cpu": Measured("minilm", 1.5, 2.5), "mps": Measured("qwen3", 3.5, 4.5)})
    assert file.of_model("qwen3") == {"mps": Measured("qwen3", 3.5, 4.5)}
    assert file.of_model("other") == {}


@pytest.mark.parametrize("content", ["", "[]", '{"cpu": 3}', '{"cpu": {"model": "m"}}', "null"])
def test_a_file_of_another_version_counts_as_not_measured(tmp_path: Path, content: str) -> None:
    (tmp_path / "devices.json").write_text(content)
    assert Measurements(tmp_path / "devices.json").read() == {}


@pytest.mark.parametrize(("requested", "kind"), [("cpu", "cpu"), ("cuda:1", "cuda"), ("auto", None), ("abacus", None)])
def test_only_devices_of_the_requested_kind_are_looked_for(
    requested: str, kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking for a device imports its framework."""
    looked_for = []

    def find_devices(*, software: bool, kind: str | None = None) -> list[DeviceInfo]:
        looked_for.append((kind, software))
        return ALL

    monkeypatch.setattr(select, "find_devices", find_devices)
    if requested == "abacus":
        with pytest.raises(UnknownDeviceError, match=r"'abacus' cannot be used: .*usable here: cpu, mps"):
            find_device(requested, software=True, use_case="auto", measured={})
    else:
        chosen, _ = find_device(requested, software=True, use_case="auto", measured={})
        assert chosen == ("mlx" if requested == "auto" else requested)
    assert looked_for == [(kind, True)]


def test_a_device_with_its_own_source_serves_another_model() -> None:
    entries = {"a": ModelEntry("x", source_mlx="y"), "b": ModelEntry("z")}
    assert for_device(entries, "mlx") == {"a@mlx": ModelEntry("y", source_mlx="y"), "b": ModelEntry("z")}
    assert for_device(entries, "cuda:1") == entries
