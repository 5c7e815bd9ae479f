"""Which dtype a torch device computes in, and why."""

import time
from typing import Any

_FASTER = 1.3
"""bfloat16 must beat float32 by this factor on the CPU to be worth its rounding."""


def choose_dtype(torch: Any, kind: str, *, wants_full: bool) -> tuple[Any, str]:
    """The dtype for embedding models on a kind of device, and why.

    Args:
        torch: the imported module.
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
    if ratio >= _FASTER:
        return torch.bfloat16, f"bfloat16: a matrix product takes 1/{ratio:.1f} of float32's time here"
    return torch.float32, f"float32: bfloat16 would run at {ratio:.1f} times its speed here"


def _bfloat16_speedup(torch: Any) -> float:
    """float32's time over bfloat16's, for 512 × 384 × 1536, the largest product of a MiniLM layer; some 2 ms each.

    The best of twenty, in turn: what else the machine does must not choose the type.
    """
    left, right = torch.randn(512, 384), torch.randn(1536, 384)
    best = dict.fromkeys((torch.float32, torch.bfloat16), float("inf"))
    operands = {dtype: (left.to(dtype), right.to(dtype)) for dtype in best}
    for _ in range(20):  # the first one pays for lazy initialisation
        for dtype in best:
            start = time.perf_counter()
            torch.nn.functional.linear(*operands[dtype])
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.float32] / best[torch.bfloat16]
