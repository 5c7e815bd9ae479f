"""Chooses the dtype that a torch device computes in, with the reason."""

import time
from typing import Any

_MIN_SPEEDUP = 1.3
"""On the CPU, bfloat16 must be this many times as fast as float32 to be worth its rounding."""


def choose_dtype(torch: Any, kind: str, *, wants_full: bool) -> tuple[Any, str]:
    """Return the dtype for embedding models on a kind of device, and why.

    Args:
        torch: the imported module.
        kind: `cpu`, `cuda` or `mps`.
        wants_full: the model's entry asks for float32.
    """
    if wants_full:
        return torch.float32, "float32: the model's entry asks for it"
    if kind == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "bfloat16: this GPU computes in it"
        return torch.float16, "float16: this GPU has no bfloat16"
    if kind == "mps":
        return torch.float16, "float16: the fastest type on MPS"
    ratio = _bfloat16_speedup(torch)
    if ratio >= _MIN_SPEEDUP:
        return torch.bfloat16, f"bfloat16: a matrix product takes 1/{ratio:.1f} of float32's time here"
    return torch.float32, f"float32: bfloat16 would run at {ratio:.1f} times its speed here"


def _bfloat16_speedup(torch: Any) -> float:
    """float32's time over bfloat16's, for 512 × 384 × 1536, the largest product of a MiniLM layer; about 2 ms each.

    It takes the best of twenty alternating runs, so that other load on the machine does not decide.
    """
    left, right = torch.randn(512, 384), torch.randn(1536, 384)
    best = dict.fromkeys((torch.float32, torch.bfloat16), float("inf"))
    operands = {dtype: (left.to(dtype), right.to(dtype)) for dtype in best}
    for _ in range(20):  # the first run pays for lazy initialisation
        for dtype in best:
            start = time.perf_counter()
            torch.nn.functional.linear(*operands[dtype])
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.float32] / best[torch.bfloat16]
