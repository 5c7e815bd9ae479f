"""How much memory and time a device uses, with stand-ins for the frameworks."""

import resource
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from semel.backends.devices import usage
from semel.backends.devices.usage import Usage, usage_of

GIB = 1 << 30


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A torch that this process has loaded."""
    stand_in: Any = ModuleType("torch")
    stand_in.set_flush_denormal = lambda on: True
    stand_in.cuda = SimpleNamespace(
        memory_reserved=lambda: 3 * GIB,
        get_device_properties=lambda _: SimpleNamespace(total_memory=80 * GIB),
        utilization=lambda: 42,
    )
    stand_in.mps = SimpleNamespace(driver_allocated_memory=lambda: GIB, recommended_max_memory=lambda: 12 * GIB)
    monkeypatch.setitem(sys.modules, "torch", stand_in)
    return stand_in


@pytest.fixture
def mlx(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An MLX on Metal that this process has loaded."""
    stand_in: Any = ModuleType("mlx.core")
    stand_in.metal = SimpleNamespace(is_available=lambda: True)
    stand_in.device_info = lambda: {"max_recommended_working_set_size": 16 * GIB}
    stand_in.get_active_memory = lambda: 2 * GIB
    stand_in.get_cache_memory = lambda: GIB
    package: Any = ModuleType("mlx")
    package.core = stand_in
    monkeypatch.setitem(sys.modules, "mlx", package)
    monkeypatch.setitem(sys.modules, "mlx.core", stand_in)
    return stand_in


def test_cuda_reports_memory_and_load_of_its_gpu(torch: Any) -> None:
    assert usage_of("cuda:1") == Usage(3 * GIB, 80 * GIB, 0.42)


@pytest.mark.parametrize("error", [ModuleNotFoundError("pynvml"), RuntimeError("not supported on MIG")])
def test_a_driver_that_reports_no_load_is_no_error(torch: Any, error: Exception) -> None:
    def utilization() -> int:
        raise error

    torch.cuda.utilization = utilization
    assert usage_of("cuda:0") == Usage(3 * GIB, 80 * GIB, None)


def test_a_framework_that_another_thread_is_importing_is_not_waited_for(torch: Any) -> None:
    torch.__spec__ = SimpleNamespace(_initializing=True)
    torch.cuda = None
    assert usage_of("cuda:0").gpu_utilization is None


def test_mps_reports_the_memory_of_the_driver(torch: Any) -> None:
    assert usage_of("mps") == Usage(GIB, 12 * GIB, None)


def test_mlx_counts_the_buffers_that_it_keeps(mlx: Any) -> None:
    assert usage_of("mlx") == Usage(3 * GIB, 16 * GIB, None)


def test_mlx_without_a_known_limit_has_the_memory_of_the_machine(mlx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mlx.device_info = dict
    monkeypatch.setattr(usage, "_machine_bytes", lambda: 64 * GIB)
    assert usage_of("mlx").total_bytes == 64 * GIB


@pytest.mark.parametrize("device", ["cpu", "vulkan:0", "mlx"])
def test_a_device_without_its_own_memory_uses_that_of_the_process(
    device: str, mlx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlx.metal.is_available = lambda: False
    monkeypatch.setattr(usage, "_machine_bytes", lambda: 64 * GIB)
    monkeypatch.setattr(usage, "_resident_bytes", lambda: 5 * GIB)
    assert usage_of(device) == Usage(5 * GIB, 64 * GIB)


@pytest.mark.parametrize("device", ["cuda:0", "mps", "mlx"])
def test_no_framework_is_loaded_for_the_question(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "mlx.core"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert usage_of(device).memory_bytes > 0
    assert not {"torch", "mlx.core"} & set(sys.modules)


def test_a_process_uses_some_but_not_all_of_the_memory() -> None:
    here = usage_of("cpu")
    assert 10 << 20 < here.memory_bytes < here.total_bytes


@pytest.mark.parametrize(("platform", "expected"), [("darwin", 1000), ("freebsd", 1000 * 1024)])
def test_without_proc_the_peak_of_the_process_counts(
    platform: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_proc(*_: object) -> Any:
        raise FileNotFoundError("/proc/self/statm")

    monkeypatch.setattr("builtins.open", no_proc)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=1000))
    monkeypatch.setattr(sys, "platform", platform)
    assert usage._resident_bytes() == expected
