"""Which devices are found, with stand-ins for the frameworks and their drivers."""

import os
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from semel.backends.devices import find
from semel.backends.devices.cores import usable_cores
from semel.backends.devices.find import describe, find_devices, pin, torch_name
from semel.values.device import KINDS, DeviceInfo

GIB = 1 << 30


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The modules that count as installed; a test adds to it."""
    modules: set[str] = set()
    monkeypatch.setattr(find, "_installed", lambda *names: modules.issuperset(names))
    return modules


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch, installed: set[str]) -> Any:
    """An installed torch without a GPU."""
    stand_in: Any = ModuleType("torch")
    stand_in.cuda = SimpleNamespace(is_available=lambda: False, init=lambda: None)
    stand_in.version = SimpleNamespace(cuda="13.0")
    stand_in.backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
    stand_in.set_flush_denormal = lambda on: True
    monkeypatch.setitem(sys.modules, "torch", stand_in)
    installed |= {"torch", "sentence_transformers"}
    return stand_in


@pytest.fixture
def mlx(monkeypatch: pytest.MonkeyPatch, installed: set[str]) -> Any:
    """An installed MLX without Metal."""
    stand_in: Any = ModuleType("mlx.core")
    stand_in.metal = SimpleNamespace(is_available=lambda: False)
    package: Any = ModuleType("mlx")
    package.core = stand_in
    monkeypatch.setitem(sys.modules, "mlx", package)
    monkeypatch.setitem(sys.modules, "mlx.core", stand_in)
    installed |= {"mlx", "mlx_lm"}
    return stand_in


def only(kind: str, **options: Any) -> DeviceInfo:
    (device,) = find_devices(kind=kind, **options)
    return device


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


class BrokenTorch:
    """Finds torch, whose import then fails."""

    @staticmethod
    def find_spec(module: str, *_: object) -> None:
        if module == "torch":
            raise OSError("libcudart.so: cannot open")


def test_without_frameworks_every_kind_says_what_to_install(
    installed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    found = find_devices()
    assert [device.name.partition(":")[0] for device in found] == list(KINDS)
    assert not any(device.usable for device in found)
    assert all("pip install 'semel[" in device.why for device in found)


def test_the_cpu_needs_only_torch(torch: Any) -> None:
    device = only("cpu")
    assert device.usable
    assert device.why.endswith(f"{usable_cores()} cores")


@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
def test_a_torch_that_does_not_load_is_reported_with_its_error(
    torch: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "meta_path", [BrokenTorch, *sys.meta_path])
    device = only(kind)
    assert not device.usable
    assert device.why == "torch is installed, but does not load (libcudart.so: cannot open): install it again"


def test_every_gpu_of_the_machine_is_listed(torch: Any) -> None:
    gpus = [SimpleNamespace(name="H100", total_memory=80 * GIB), SimpleNamespace(name="T4", total_memory=15 * GIB)]
    torch.cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 2, get_device_properties=lambda i: gpus[i]
    )
    assert find_devices(kind="cuda") == [
        DeviceInfo("cuda:0", usable=True, why="H100, 80 GB"),
        DeviceInfo("cuda:1", usable=True, why="T4, 15 GB"),
    ]


def test_a_torch_without_cuda_says_which_extra_has_it(torch: Any) -> None:
    torch.version.cuda = None
    assert only("cuda").why == "this torch is built without CUDA: pip install 'semel[cuda]'"


@pytest.mark.parametrize(
    ("init", "why"),
    [
        (failing(RuntimeError("the driver is too old\nhere is a long text")), "the driver is too old"),
        (failing(AssertionError("no driver")), "no driver"),
        (lambda: None, "torch finds no NVIDIA GPU"),
    ],
)
def test_without_a_gpu_the_reason_is_torchs_first_line(torch: Any, init: Callable[[], None], why: str) -> None:
    torch.cuda.init = init
    assert only("cuda") == DeviceInfo("cuda:0", usable=False, why=why)


def test_mps_reports_the_memory_that_is_free(torch: Any) -> None:
    torch.backends.mps.is_available = lambda: True
    torch.mps = SimpleNamespace(recommended_max_memory=lambda: 12 * GIB, driver_allocated_memory=lambda: 2 * GIB)
    assert only("mps") == DeviceInfo("mps", usable=True, why="Apple GPU, 10 GB free")


def test_mps_without_an_apple_gpu_is_not_usable(torch: Any) -> None:
    assert only("mps") == DeviceInfo("mps", usable=False, why="needs a Mac with Apple silicon and macOS 13 or newer")


def test_mlx_on_metal_reports_gpu_and_memory(mlx: Any) -> None:
    mlx.metal.is_available = lambda: True
    mlx.device_info = lambda: {"device_name": "Apple M3", "max_recommended_working_set_size": 16 * GIB}
    assert only("mlx") == DeviceInfo("mlx", usable=True, why="Apple M3, 16 GB")


def test_mlx_without_metal_is_usable_only_if_software_is_accepted(mlx: Any) -> None:
    refused, accepted = only("mlx"), only("mlx", software=True)
    assert (refused.usable, accepted.usable, accepted.software) == (False, True, True)
    assert "SEMEL_SOFTWARE_DEVICES=true allows it" in refused.why


def test_an_mlx_that_does_not_load_is_reported_with_its_error(mlx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    del sys.modules["mlx"].core
    device = only("mlx")
    assert not device.usable
    assert device.why.startswith("mlx is installed, but does not load (import of mlx.core halted")


def test_macos_has_no_vulkan(installed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    installed |= {"onnxruntime", "onnxruntime_ep_webgpu"}
    assert only("vulkan").why == "macOS has no Vulkan: use mlx (pip install 'semel[mlx]') or mps"


def test_vulkan_lists_its_adapters(installed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    installed |= {"onnxruntime", "onnxruntime_ep_webgpu"}
    adapters = [DeviceInfo("vulkan:0", usable=True, why="a GPU"), DeviceInfo("vulkan:1", usable=False, why="second")]
    monkeypatch.setattr(find, "find_adapters", lambda *, software: adapters if software else [])
    assert find_devices(kind="vulkan", software=True) == adapters


def test_a_device_is_described_by_its_full_name(torch: Any) -> None:
    assert describe("cpu") == only("cpu")
    assert describe("cuda:7") == DeviceInfo("cuda:7", usable=False, why="not found")


@pytest.fixture
def unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find._Pinned, "device", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is restored


@pytest.mark.parametrize(
    ("device", "before", "after"),
    [("cuda:1", "", "1"), ("cuda:1", "4,7", "7"), ("cuda:0", "GPU-1234", "GPU-1234")],
)
def test_pinning_hides_the_other_gpus(
    unpinned: None, device: str, before: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    pin(device)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == after
    assert torch_name(device) == "cuda:0"


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:two", "vulkan:1", "cuda:5"])
def test_a_device_that_names_no_visible_gpu_pins_nothing(
    unpinned: None, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    pin(device)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,7"
    assert torch_name(device) == device


def test_a_pinned_gpu_keeps_its_name(unpinned: None, torch: Any) -> None:
    pin("cuda:3")
    gpu = SimpleNamespace(name="T4", total_memory=15 * GIB)
    torch.cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1, get_device_properties=lambda _: gpu)
    assert find_devices(kind="cuda") == [DeviceInfo("cuda:3", usable=True, why="T4, 15 GB")]
    assert torch_name("cuda:2") == "cuda:2"


@pytest.mark.model  # it imports every framework that is installed
def test_this_machine_lists_every_kind_with_a_reason() -> None:
    found = find_devices()
    assert [device.name.partition(":")[0] for device in found] == list(KINDS)
    assert all(device.why for device in found)
