"""int8 and int4 weights on torch, through bitsandbytes (docs/adr/0016: why not torchao). Imports torch.

Only weights are quantised: activations stay in the dtype of the model, so a vector does not depend on the other texts
of the batch.
"""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from semel.errors import ModelLoadError
from semel.values.model import Precision

_BLOCK = 64
"""Weights that share a scale in NF4: the library's default."""


def quantise(model: str, module: nn.Module, precision: Precision, device: str) -> str:
    """Replace the linear layers of a module in place, one by one, and move it to the device; returns what was done.

    int8 has one absmax scale for each output row; int4 is NF4 in blocks of 64.

    Args:
        model: the model's name, for messages.
        module: the transformer, on the CPU in the dtype to compute in.
        precision: INT8 or INT4.
        device: as torch names it.

    Raises:
        ModelLoadError: bitsandbytes is missing.
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
                quantised = Int8Linear(bnb, layer) if precision == Precision.INT8 else _nf4(bnb, layer)
                quantised = quantised.to(device).eval()  # NF4 quantises here
                if precision == Precision.INT4:
                    quantised.support_avx512bf16_for_cpu = False  # it repacks weights in place, for some shapes only
                setattr(parent, name, quantised)
                replaced += 1
    module.to(device)
    return f"{precision} weights in {replaced} layers by bitsandbytes {bnb.__version__}"


class Int8Linear(nn.Module):
    """`nn.Linear` with int8 weights and a scale for each output row; the weights are float only during the product.

    bitsandbytes' own int8 layer also rounds the activations. MiniLM's vectors then agree with the full ones to 0.9962,
    and with themselves in another batch to 0.9987; with this layer to 0.9994 and 0.9999 (measured, lowest cosines).

    Args:
        bnb: the imported bitsandbytes.
        layer: the layer to replace.

    Attributes:
        codes: int8 (out, in).
        scales: (out, 1), in the layer's dtype.
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, bnb: Any, layer: nn.Linear) -> None:
        super().__init__()
        codes, highest, _ = bnb.functional.int8_vectorwise_quant(layer.weight.data.to(torch.float16))
        self.register_buffer("codes", codes)
        self.register_buffer("scales", (highest.float() / 127)[:, None].to(layer.weight.dtype))
        self.bias = layer.bias

    @override
    def forward(self, values: Tensor) -> Tensor:
        return nn.functional.linear(values, self.codes.to(values.dtype) * self.scales, self.bias)


def _nf4(bnb: Any, layer: nn.Linear) -> nn.Module:
    """The library's NF4 layer with the weights of `layer`; moving it to a device quantises them."""
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
