"""Backends on MLX: Apple's GPU."""
