"""int8 and int4 weights on torch, through bitsandbytes; docs/adr/0016 says why it and not torchao. Imports torch."""

from typing import Any

from torch import nn

from semel.errors import ModelLoadError
from semel.values import Precision

_BLOCK = 64
"""Weights that share a scale in NF4: the library's default."""


def quantise(model: str, module: nn.Module, precision: Precision, device: str) -> str:
    """Replace the linear layers of a module, in place and one by one, and bring it to the device.

    int8 is LLM.int8() without outliers: its choice of outlier columns would look at the whole batch, and a vector must
    not depend on its neighbours. int4 is NF4 in blocks of 64.

    Args:
        model: its name, for messages.
        module: the transformer, on the CPU in the dtype to compute in.

    Returns: what was done.

    Raises:
        ModelLoadError: the library is missing, or does not run on this device.
    """
    try:
        import bitsandbytes as bnb
    except ImportError:
        raise ModelLoadError(
            f"model {model!r}: precision {precision} needs bitsandbytes: pip install 'semel[quantised]'"
        ) from None
    if device == "mps":
        raise ModelLoadError(
            f"model {model!r}: precision {precision} is not for MPS; on a Mac give the model a quantised source_mlx"
        )
    replaced = 0
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                setattr(parent, name, _quantised(bnb, layer, precision, device))
                replaced += 1
    module.to(device)
    return f"{precision} weights in {replaced} layers by bitsandbytes {bnb.__version__}"


def _quantised(bnb: Any, layer: nn.Linear, precision: Precision, device: str) -> nn.Module:
    sizes = {"bias": layer.bias is not None, "device": "meta"}
    if precision is Precision.INT8:
        made = bnb.nn.Linear8bitLt(
            layer.in_features, layer.out_features, has_fp16_weights=False, threshold=0.0, **sizes
        )
        made.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    else:
        dtype = layer.weight.dtype
        made = bnb.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            compute_dtype=dtype,
            compress_statistics=False,
            quant_type="nf4",
            **sizes,
        )
        made.weight = bnb.nn.Params4bit(
            layer.weight.data,
            requires_grad=False,
            quant_type="nf4",
            compress_statistics=False,
            blocksize=_BLOCK,
            module=made,
        )
    made.bias = layer.bias
    made = made.to(device).eval()  # this quantises
    if precision is Precision.INT4:
        made.support_avx512bf16_for_cpu = False  # it repacks the weights in place, for some shapes only
    return made
