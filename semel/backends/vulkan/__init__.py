"""Backends on Vulkan, through ONNX Runtime."""
