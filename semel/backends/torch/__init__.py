"""Backends on PyTorch: CPU, CUDA and MPS."""
