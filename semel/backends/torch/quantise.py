"""int8 and int4 weights on torch, through bitsandbytes; docs/adr/0016 says why it and not torchao. Imports torch.

Weights only: what goes through a layer stays in the dtype of the model, so a vector does not depend on its neighbours
in the batch.
"""

from typing import Any

import torch
from torch import Tensor, nn

from semel.errors import ModelLoadError
from semel.values.model import Precision

_BLOCK = 64
"""Weights that share a scale in NF4: the library's default."""


def quantise(model: str, module: nn.Module, precision: Precision, device: str) -> str:
    """Replace the linear layers of a module, in place and one by one, and bring it to the device.

    int8 is absmax for each output row; int4 is NF4 in blocks of 64.

    Args:
        model: its name, for messages.
        module: the transformer, on the CPU in the dtype to compute in.

    Returns: what was done.

    Raises:
        ModelLoadError: the library is missing.
    """
    try:
        import bitsandbytes as bnb
    except ImportError:
        raise ModelLoadError(
            f"model {model!r}: precision {precision} needs bitsandbytes: pip install 'semel[quantised]'"
        ) from None
    replaced = 0
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                made = Int8Linear(bnb, layer) if precision == Precision.INT8 else _nf4(bnb, layer)
                made = made.to(device).eval()  # NF4 quantises here
                if precision == Precision.INT4:
                    made.support_avx512bf16_for_cpu = False  # it repacks the weights in place, for some shapes only
                setattr(parent, name, made)
                replaced += 1
    module.to(device)
    return f"{precision} weights in {replaced} layers by bitsandbytes {bnb.__version__}"


class Int8Linear(nn.Module):
    """`nn.Linear` whose weights are int8 with a scale for each output row, and float for the moment of the product.

    The library's own int8 layer rounds what goes through it, too. MiniLM's vectors then agree with the full ones to
    0.9962, and with themselves in another batch to 0.9987; these to 0.9994 and 0.9999 (measured, the lowest cosines).
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, bnb: Any, layer: nn.Linear) -> None:
        super().__init__()
        codes, highest, _ = bnb.functional.int8_vectorwise_quant(layer.weight.data.to(torch.float16))
        self.register_buffer("codes", codes)
        self.register_buffer("scales", (highest.float() / 127)[:, None].to(layer.weight.dtype))
        self.bias = layer.bias

    def forward(self, values: Tensor) -> Tensor:
        return nn.functional.linear(values, self.codes.to(values.dtype) * self.scales, self.bias)


def _nf4(bnb: Any, layer: nn.Linear) -> nn.Module:
    made = bnb.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=layer.weight.dtype,
        compress_statistics=False,
        quant_type="nf4",
        device="meta",
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
    return made
