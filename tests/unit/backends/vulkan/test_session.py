"""Adapters of Vulkan, and sessions that run on one or not at all, with stand-ins for the driver and ONNX Runtime."""

import ctypes
import importlib.util
import os
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from semel.backends.vulkan import session as session_module
from semel.backends.vulkan.session import Adapter, find_adapters, open_session, softmax_of_product
from semel.errors import BackendError

GIB = 1 << 30
GPU = Adapter("RX 7900", software=False, memory_bytes=24 * GIB)
LAVAPIPE = Adapter("llvmpipe", software=True, memory_bytes=8 * GIB)
PLUGIN = "WebGpuExecutionProvider"


def found(monkeypatch: pytest.MonkeyPatch, adapters: list[Adapter] | str, *, software: bool = False) -> Any:
    monkeypatch.setattr(session_module, "_adapters", lambda: adapters)
    return [(device.name, device.usable, device.why) for device in find_adapters(software=software)]


def test_the_first_adapter_is_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, [GPU]) == [("vulkan:0", True, "RX 7900, 24 GB")]


def test_further_adapters_say_how_to_put_them_first(monkeypatch: pytest.MonkeyPatch) -> None:
    (_, (name, usable, why)) = found(monkeypatch, [GPU, LAVAPIPE], software=True)
    assert (name, usable) == ("vulkan:1", False)
    assert why == "llvmpipe, 8 GB; ONNX Runtime takes the first adapter (set VK_DRIVER_FILES to put this one first)"


def test_software_is_used_only_if_it_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    ((_, usable, why),) = found(monkeypatch, [LAVAPIPE])
    assert not usable
    assert "it renders on the CPU (SEMEL_SOFTWARE_DEVICES=true allows it" in why
    assert found(monkeypatch, [LAVAPIPE], software=True) == [("vulkan:0", True, "llvmpipe, 8 GB")]


def test_without_adapters_the_reason_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, "no loader") == [("vulkan:0", False, "no loader")]


class Driver:
    """A Vulkan loader with adapters of (name, type, heaps of (size, local))."""

    def __init__(self, *adapters: tuple[bytes, int, list[tuple[int, bool]]], fails: bool = False) -> None:
        self._adapters = adapters
        self._fails = fails
        self.destroyed = 0

    def vkCreateInstance(self, info: Any, _: None, instance: Any) -> int:  # noqa: N802
        return -9 if self._fails else 0  # VK_ERROR_INCOMPATIBLE_DRIVER

    def vkDestroyInstance(self, *_: object) -> None:  # noqa: N802
        self.destroyed += 1

    def vkEnumeratePhysicalDevices(self, _: object, count: Any, handles: Any) -> None:  # noqa: N802
        if handles is None:
            count._obj.value = len(self._adapters)
        else:
            for i in range(len(self._adapters)):
                handles[i] = i + 1

    def vkGetPhysicalDeviceProperties(self, handle: Any, buffer: Any) -> None:  # noqa: N802
        name, kind, _ = self._adapters[handle.value - 1]
        ctypes.memmove(buffer, struct.pack("<5I256s", 0, 0, 0, 0, kind, name), 276)

    def vkGetPhysicalDeviceMemoryProperties(self, handle: Any, buffer: Any) -> None:  # noqa: N802
        _, _, heaps = self._adapters[handle.value - 1]
        packed = b"".join(struct.pack("<QI4x", size, local) for size, local in heaps)
        ctypes.memmove(buffer, bytes(260) + struct.pack("<I", len(heaps)) + packed, 264 + len(packed))


def adapters_of(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> list[Adapter] | str:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    return session_module._adapters()


def test_name_kind_and_local_memory_are_read_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(
        (b"RX 7900\0rest", 2, [(24 * GIB, True), (64 * GIB, False)]),
        (b"llvmpipe", 4, [(8 * GIB, True)]),
    )
    assert adapters_of(driver, monkeypatch) == [GPU, LAVAPIPE]
    assert driver.destroyed == 1


@pytest.mark.parametrize(
    ("driver", "why"),
    [
        (Driver(fails=True), "the Vulkan loader finds no driver: install your GPU's, or mesa-vulkan-drivers"),
        (Driver(), "the Vulkan loader finds no device"),
    ],
)
def test_a_loader_without_driver_or_device_says_so(driver: Driver, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert adapters_of(driver, monkeypatch) == why


def test_a_machine_without_vulkan_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    assert session_module._adapters() == "there is no Vulkan loader: install libvulkan1 and your GPU's driver"


class Runtime:
    """ONNX Runtime whose plugin, once registered, has devices."""

    GraphOptimizationLevel = SimpleNamespace(ORT_ENABLE_BASIC="basic")

    def __init__(self, *, devices: int = 1, runs_on: str = PLUGIN, error: Exception | None = None) -> None:
        self._devices = devices
        self.runs_on = runs_on
        self.error = error
        self.registered: list[str] = []
        self.options: Any = None
        self.fell_back = True

    def SessionOptions(self) -> Any:  # noqa: N802
        self.options = SimpleNamespace(given=[])
        self.options.add_provider_for_devices = lambda *given: self.options.given.append(given)
        return self.options

    def InferenceSession(self, graph: bytes, *, sess_options: Any, enable_fallback: int) -> Any:  # noqa: N802
        if self.error is not None:
            raise self.error
        assert enable_fallback == 0
        return SimpleNamespace(disable_fallback=self._stay, get_providers=lambda: [self.runs_on])

    def _stay(self) -> None:
        self.fell_back = False

    def get_ep_devices(self) -> list[Any]:
        plugged = [SimpleNamespace(ep_name=PLUGIN)] * (self._devices if self.registered else 0)
        return [SimpleNamespace(ep_name="CPUExecutionProvider"), *plugged]

    def set_default_logger_severity(self, level: int) -> None:
        pass

    def register_execution_provider_library(self, name: str, path: str) -> None:
        self.registered.append(path)


def with_runtime(monkeypatch: pytest.MonkeyPatch, adapters: list[Adapter] | str = "none", **options: Any) -> Runtime:
    runtime = Runtime(**options)
    plugin = SimpleNamespace(get_ep_name=lambda: PLUGIN, get_library_path=lambda: "libplugin.so")
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_webgpu", plugin)
    monkeypatch.setattr(session_module, "_adapters", lambda: adapters)
    monkeypatch.setenv("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER", "")  # so that it is restored
    monkeypatch.delenv("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER")
    return runtime


def test_a_session_runs_on_one_vulkan_device_and_never_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = with_runtime(monkeypatch, devices=2)
    open_session(b"graph")
    ((devices, options),) = runtime.options.given
    assert (len(devices), options) == (1, {"dawnBackendType": "Vulkan"})
    assert runtime.options.graph_optimization_level == "basic"
    assert not runtime.fell_back


def test_the_plugin_is_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = with_runtime(monkeypatch)
    open_session(b"graph")
    open_session(b"graph")
    assert runtime.registered == ["libplugin.so"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"error": RuntimeError("invalid protobuf")}, "cannot open a session on Vulkan: invalid protobuf"),
        ({"runs_on": "CPUExecutionProvider"}, "would run the model on CPUExecutionProvider, not on Vulkan"),
        ({"devices": 0}, "WebGPU plugin finds no device here; 'semel devices' lists the adapters"),
    ],
)
def test_a_session_that_would_run_elsewhere_is_refused(
    options: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_runtime(monkeypatch, **options)
    with pytest.raises(BackendError, match=why):
        open_session(b"graph")


@pytest.mark.parametrize(
    ("drm", "adapters", "allowed"),
    [
        (True, [GPU, LAVAPIPE], False),
        (True, [LAVAPIPE], True),
        (True, "no device", False),
        (False, [GPU], True),
    ],
)
def test_software_is_allowed_only_where_it_cannot_replace_a_gpu(
    drm: bool, adapters: list[Adapter] | str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_runtime(monkeypatch, adapters)
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: drm if str(path) == "/sys/class/drm" else real(path))
    open_session(b"graph")
    assert (os.environ.get("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER") == "1") is allowed


def test_the_self_test_without_onnx_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"the self-test needs the package onnx: pip install 'semel\[vulkan\]'"):
        softmax_of_product(None, None)  # type: ignore[arg-type]
