"""Vulkan through ONNX Runtime's WebGPU plugin: which adapters there are, and a session that runs on one or not at all.

What it takes was found out by trying (onnxruntime 1.31, onnxruntime-ep-webgpu 0.4, Mesa 25):

- The plugin does not say on which adapter it runs, so Vulkan itself is asked, and the first adapter is what it takes.
- A session falls back to the CPU in silence unless `enable_fallback` is off.
- A tensor above the device's storage-buffer limit gives wrong rows without an error: callers keep below `limit_bytes`.
"""

import ctypes
import importlib.util
import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semel.errors import BackendError
from semel.values.device import DeviceInfo

LIMIT_BYTES = 128 << 20
"""The smallest storage buffer among common devices (lavapipe's), and what WebGPU asks for at the least."""

_REGISTRATION = "semel_webgpu"

_VULKAN_1_1 = (1 << 22) | (1 << 12)
_CPU_TYPE = 4  # VK_PHYSICAL_DEVICE_TYPE_CPU
_NAME_AT, _NAME_BYTES = 20, 256
"""Where VkPhysicalDeviceProperties holds the adapter's name, behind five uint32: vulkan_core.h."""

_registering = threading.Lock()


@dataclass(frozen=True)
class Adapter:
    """A physical device of Vulkan."""

    name: str
    software: bool
    memory_bytes: int


def find_adapters(*, software: bool) -> list[DeviceInfo]:
    """`vulkan:0` and what stands beside it, usable or not, with the reason."""
    adapters = _adapters()
    if isinstance(adapters, str):
        return [DeviceInfo("vulkan:0", usable=False, why=adapters)]
    found = []
    for index, adapter in enumerate(adapters):
        about = f"{adapter.name}, {adapter.memory_bytes / (1 << 30):.0f} GB"
        if index:
            why = f"{about}; ONNX Runtime takes the first adapter (put this one first by VK_DRIVER_FILES)"
            found.append(DeviceInfo(f"vulkan:{index}", usable=False, why=why, software=adapter.software))
        elif adapter.software and not software:
            why = f"{about}: it renders on the CPU (SEMEL_SOFTWARE_DEVICES=true allows it, for tests)"
            found.append(DeviceInfo("vulkan:0", usable=False, why=why, software=True))
        else:
            found.append(DeviceInfo("vulkan:0", usable=True, why=about, software=adapter.software))
    return found


def _adapters() -> list[Adapter] | str:
    """The adapters in Vulkan's order, or why there are none."""
    try:
        vulkan = ctypes.CDLL("libvulkan.so.1" if os.name == "posix" else "vulkan-1.dll")
    except OSError:
        return "there is no Vulkan loader: install libvulkan1 and your GPU's driver"
    application = _ApplicationInfo(0, None, b"semel", 1, b"semel", 1, _VULKAN_1_1)
    wanted = _InstanceInfo(1, None, 0, ctypes.pointer(application), 0, None, 0, None)
    instance = ctypes.c_void_p()
    if vulkan.vkCreateInstance(ctypes.byref(wanted), None, ctypes.byref(instance)):
        return "the Vulkan loader finds no driver: install your GPU's, or mesa-vulkan-drivers"
    try:
        count = ctypes.c_uint32()
        vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
        handles = (ctypes.c_void_p * count.value)()
        vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)
        return [_describe(vulkan, handle) for handle in handles] or "the Vulkan loader finds no device"
    finally:
        vulkan.vkDestroyInstance(instance, None)


def _describe(vulkan: Any, handle: int | None) -> Adapter:
    about = ctypes.create_string_buffer(2048)  # VkPhysicalDeviceProperties has 824 bytes
    vulkan.vkGetPhysicalDeviceProperties(ctypes.c_void_p(handle), about)
    kind = struct.unpack_from("<5I", about, 0)[4]
    name = about.raw[_NAME_AT : _NAME_AT + _NAME_BYTES].split(b"\0")[0].decode(errors="replace")
    memory = ctypes.create_string_buffer(2048)  # VkPhysicalDeviceMemoryProperties: 32 types, then up to 16 heaps
    vulkan.vkGetPhysicalDeviceMemoryProperties(ctypes.c_void_p(handle), memory)
    heaps = [struct.unpack_from("<QI", memory, 264 + 16 * i) for i in range(struct.unpack_from("<I", memory, 260)[0])]
    return Adapter(name, software=kind == _CPU_TYPE, memory_bytes=sum(size for size, local in heaps if local & 1))


class _ApplicationInfo(ctypes.Structure):
    _fields_ = (
        ("sType", ctypes.c_int),
        ("pNext", ctypes.c_void_p),
        ("pApplicationName", ctypes.c_char_p),
        ("applicationVersion", ctypes.c_uint32),
        ("pEngineName", ctypes.c_char_p),
        ("engineVersion", ctypes.c_uint32),
        ("apiVersion", ctypes.c_uint32),
    )


class _InstanceInfo(ctypes.Structure):
    _fields_ = (
        ("sType", ctypes.c_int),
        ("pNext", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("pApplicationInfo", ctypes.POINTER(_ApplicationInfo)),
        ("enabledLayerCount", ctypes.c_uint32),
        ("ppEnabledLayerNames", ctypes.c_void_p),
        ("enabledExtensionCount", ctypes.c_uint32),
        ("ppEnabledExtensionNames", ctypes.c_void_p),
    )


def open_session(graph: bytes) -> Any:
    """An ONNX Runtime session on Vulkan.

    Raises:
        BackendError: it would run elsewhere, or not at all.
    """
    import onnxruntime as ort

    devices = _plugin_devices()
    options = ort.SessionOptions()
    # Levels above join attention and what stands around it into kernels of their own, some of which are wrong.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    options.add_provider_for_devices(devices[:1], {"dawnBackendType": "Vulkan"})
    try:
        session = ort.InferenceSession(graph, sess_options=options, enable_fallback=0)
    except Exception as error:  # its classes are private, and differ between releases
        raise BackendError(f"ONNX Runtime opens no session on Vulkan: {error}") from error
    session.disable_fallback()
    took = session.get_providers()[0]
    if took != devices[0].ep_name:
        raise BackendError(f"ONNX Runtime would run on {took} and not on Vulkan")
    return session


def _plugin_devices() -> list[Any]:
    """The plugin's devices; it is registered once in a process, and never taken out (that aborts)."""
    import onnxruntime as ort
    import onnxruntime_ep_webgpu as plugin

    def known() -> list[Any]:
        return [device for device in ort.get_ep_devices() if device.ep_name == plugin.get_ep_name()]

    with _registering:
        if not known():
            # Without it lavapipe, and machines that have no /sys/class/drm, show no device at all. With it the plugin
            # could take software beside a GPU, so it is set only where find_adapters saw that, or could not matter.
            adapters = _adapters()
            if not Path("/sys/class/drm").exists() or (not isinstance(adapters, str) and adapters[0].software):
                os.environ.setdefault("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER", "1")
            ort.set_default_logger_severity(3)
            ort.register_execution_provider_library(_REGISTRATION, plugin.get_library_path())
        if not known():
            raise BackendError("ONNX Runtime's WebGPU plugin shows no device on this machine")
        return known()


def softmax_of_product(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """softmax(left rightᵀ) over the rows, on Vulkan. Raises BackendError."""
    if not importlib.util.find_spec("onnx"):
        raise BackendError("the self-test needs the package onnx: pip install 'semel[vulkan]'")
    from onnx import TensorProto, helper

    values = {"left": left.shape, "right": right.T.shape, "out": (len(left), len(right))}
    given = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()}
    nodes = [
        helper.make_node("MatMul", ["left", "right"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["out"], axis=1),
    ]
    graph = helper.make_graph(nodes, "self_test", [given["left"], given["right"]], [given["out"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = open_session(model.SerializeToString())
    answer: npt.NDArray[np.float32] = session.run(None, {"left": left, "right": np.ascontiguousarray(right.T)})[0]
    return answer
