"""Vulkan through ONNX Runtime's WebGPU plugin: lists the adapters, and opens sessions that run on one or not at all.

Facts found by trying (onnxruntime 1.31, onnxruntime-ep-webgpu 0.4, Mesa 25):

- The plugin does not report its adapter. It takes the first one, so this module asks Vulkan itself which that is.
- A session falls back to the CPU without a message unless `enable_fallback` is off.
- A tensor above the device's storage-buffer limit gives wrong rows without an error: callers stay below `LIMIT_BYTES`.
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
"""The smallest storage-buffer limit of common devices (lavapipe's), and the minimum that WebGPU requires."""

_REGISTRATION = "semel_webgpu"
"""The name of the plugin in ONNX Runtime."""

_VULKAN_1_1 = (1 << 22) | (1 << 12)
_CPU_TYPE = 4  # VK_PHYSICAL_DEVICE_TYPE_CPU
_NAME_AT, _NAME_BYTES = 20, 256
"""Offset and size of the adapter's name in VkPhysicalDeviceProperties, after five uint32: vulkan_core.h."""

_registering = threading.Lock()


@dataclass(frozen=True)
class Adapter:
    """A physical device of Vulkan.

    Attributes:
        software: it imitates a GPU on the CPU.
        memory_bytes: memory that is local to the device.
    """

    name: str
    software: bool
    memory_bytes: int


def find_adapters(*, software: bool) -> list[DeviceInfo]:
    """List `vulkan:0` and further adapters, usable or not, with the reason.

    Args:
        software: accept an adapter that imitates a GPU on the CPU.
    """
    adapters = _adapters()
    if isinstance(adapters, str):
        return [DeviceInfo("vulkan:0", usable=False, why=adapters)]
    found = []
    for index, adapter in enumerate(adapters):
        about = f"{adapter.name}, {adapter.memory_bytes / (1 << 30):.0f} GB"
        if index:
            why = f"{about}; ONNX Runtime takes the first adapter (set VK_DRIVER_FILES to put this one first)"
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
    info = _InstanceInfo(1, None, 0, ctypes.pointer(application), 0, None, 0, None)
    instance = ctypes.c_void_p()
    if vulkan.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance)):
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
    """Read the properties of one physical device."""
    properties = ctypes.create_string_buffer(2048)  # VkPhysicalDeviceProperties has 824 bytes
    vulkan.vkGetPhysicalDeviceProperties(ctypes.c_void_p(handle), properties)
    kind = struct.unpack_from("<5I", properties, 0)[4]
    name = properties.raw[_NAME_AT : _NAME_AT + _NAME_BYTES].split(b"\0")[0].decode(errors="replace")
    memory = ctypes.create_string_buffer(2048)  # VkPhysicalDeviceMemoryProperties: 32 types, then up to 16 heaps
    vulkan.vkGetPhysicalDeviceMemoryProperties(ctypes.c_void_p(handle), memory)
    heaps = [struct.unpack_from("<QI", memory, 264 + 16 * i) for i in range(struct.unpack_from("<I", memory, 260)[0])]
    return Adapter(name, software=kind == _CPU_TYPE, memory_bytes=sum(size for size, local in heaps if local & 1))


class _ApplicationInfo(ctypes.Structure):
    """VkApplicationInfo."""

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
    """VkInstanceCreateInfo."""

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
    """Open an ONNX Runtime session on Vulkan.

    Args:
        graph: an ONNX model.

    Raises:
        BackendError: the session would run elsewhere, or not at all.
    """
    import onnxruntime as ort

    devices = _plugin_devices()
    options = ort.SessionOptions()
    # Higher levels fuse attention with its neighbours into special kernels, some of which give wrong numbers.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    options.add_provider_for_devices(devices[:1], {"dawnBackendType": "Vulkan"})
    try:
        session = ort.InferenceSession(graph, sess_options=options, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's error classes are private, and differ between releases
        raise BackendError(f"ONNX Runtime cannot open a session on Vulkan: {error}") from error
    session.disable_fallback()
    provider = session.get_providers()[0]
    if provider != devices[0].ep_name:
        raise BackendError(f"ONNX Runtime would run the model on {provider}, not on Vulkan; use another device")
    return session


def _plugin_devices() -> list[Any]:
    """The plugin's devices. It is registered once in a process and never unregistered, which would abort the process.

    Raises BackendError if the plugin finds no device.
    """
    import onnxruntime as ort
    import onnxruntime_ep_webgpu as plugin

    def known() -> list[Any]:
        return [device for device in ort.get_ep_devices() if device.ep_name == plugin.get_ep_name()]

    with _registering:
        if not known():
            # Without the variable, lavapipe and machines without /sys/class/drm show no device at all. With it, the
            # plugin could take software although there is a GPU: it is set only if software is first, or without drm.
            adapters = _adapters()
            if not Path("/sys/class/drm").exists() or (not isinstance(adapters, str) and adapters[0].software):
                os.environ.setdefault("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER", "1")
            ort.set_default_logger_severity(3)
            ort.register_execution_provider_library(_REGISTRATION, plugin.get_library_path())
        if not known():
            raise BackendError("ONNX Runtime's WebGPU plugin finds no device here; 'semel devices' lists the adapters")
        return known()


def softmax_of_product(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Compute softmax(left rightᵀ) along each row, on Vulkan.

    Args:
        left, right: float32 (n, width) and (m, width); the result is (n, m).

    Raises:
        BackendError: onnx is missing, or there is no session on Vulkan.
    """
    if not importlib.util.find_spec("onnx"):
        raise BackendError("the self-test needs the package onnx: pip install 'semel[vulkan]'")
    from onnx import TensorProto, helper

    values = {"left": left.shape, "right": right.T.shape, "out": (len(left), len(right))}
    tensors = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()}
    nodes = [
        helper.make_node("MatMul", ["left", "right"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["out"], axis=1),
    ]
    graph = helper.make_graph(nodes, "self_test", [tensors["left"], tensors["right"]], [tensors["out"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = open_session(model.SerializeToString())
    result: npt.NDArray[np.float32] = session.run(None, {"left": left, "right": np.ascontiguousarray(right.T)})[0]
    return result
