"""What frameworks cannot do in two threads at once, though one may load a model while another one computes.

Take `loading` before `computing`, or two threads could wait for each other.
"""

import threading

loading = threading.RLock()
"""Held while transformers makes a model: it patches torch and itself for that time, and two threads that do so leave
weights uninitialised (huggingface/transformers #41782, #44940)."""

computing = threading.RLock()
"""Held for a batch, and for what must not happen during one: transformers changes torch's default dtype for the whole
process, and two sessions of ONNX Runtime on WebGPU at once crash (microsoft/onnxruntime #32561)."""
