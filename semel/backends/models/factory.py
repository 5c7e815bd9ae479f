"""Chooses the backend that runs a model. A framework is imported only when its backend loads a model."""

from pathlib import Path

from semel.backends.base import Backend
from semel.backends.fake import FakeBackend, FakeOptions
from semel.backends.mlx.backend import MlxBackend
from semel.backends.mlx.rerank import MlxReranker
from semel.backends.models.head import is_lexical
from semel.backends.models.layout import stored_precision
from semel.backends.models.source import ModelSource
from semel.backends.torch.backend import TorchBackend
from semel.backends.torch.classify import TorchClassifier
from semel.backends.torch.rerank import TorchReranker
from semel.backends.torch.sparse import TorchLexical, TorchSparse
from semel.backends.torch.static import TorchStatic
from semel.backends.vulkan.backend import VulkanBackend, VulkanReranker
from semel.errors import ModelLoadError
from semel.values.device import device_kind
from semel.values.model import Precision

BACKENDS = {"cpu": "torch", "cuda": "torch", "mps": "torch", "mlx": "mlx", "vulkan": "onnxruntime"}
"""Kind of device → the framework that drives it. The backends imported above import theirs in `load`, not earlier."""


def create_backend(
    source: ModelSource, device: str, *, threads: int | None = None, converted: Path | None = None
) -> Backend:
    """Create the backend that runs a model on a device, without loading the model.

    Args:
        source: the model.
        device: the device's name, such as `cuda:0`.
        threads: CPU threads for one batch; None takes all cores.
        converted: folder for converted weights, which are made once; None takes one in the user's cache.

    Raises:
        ModelLoadError: this device cannot compute in the model's precision, or the model's files are missing.
        BadInputError: a fake model with an option that does not exist.
    """
    entry = source.entry
    if source.is_fake:
        return FakeBackend(source.name, FakeOptions.parse(entry.source), device=device, kind=entry.kind)
    check_runs(source, device)
    reranks, framework = entry.kind == "cross-encoder", BACKENDS[device_kind(device)]
    if framework == "mlx":
        return MlxReranker(source) if reranks else MlxBackend(source)
    if framework == "onnxruntime":
        graphs = converted or Path("~/.cache/semel").expanduser()
        vulkan = VulkanReranker if reranks else VulkanBackend
        return vulkan(source, device=device, converted=graphs)
    return _torch_class(source)(source, device=device, threads=threads)


def _torch_class(source: ModelSource) -> type[TorchBackend]:
    if source.entry.kind == "sparse":
        return TorchLexical if is_lexical(source) else TorchSparse
    if source.is_static:
        return TorchStatic
    kinds = {"embed": TorchBackend, "cross-encoder": TorchReranker, "classifier": TorchClassifier}
    return kinds[source.entry.kind]


def check_runs(source: ModelSource, device: str) -> None:
    """Check that a device's framework has a backend for a model. Raises ModelLoadError.

    Args:
        device: the device's name, or its kind.
    """
    if not source.is_fake:
        _check_precision(source, device)
        _check_kind(source, device)


def _check_kind(source: ModelSource, device: str) -> None:
    """Raises ModelLoadError where the device's framework has no backend for this kind of model."""
    kind = source.entry.kind
    if BACKENDS[device_kind(device)] == "torch":
        return
    if kind in ("classifier", "sparse") or source.is_static:
        what = f"models of kind {kind}" if kind != "embed" else "static embeddings"
        raise ModelLoadError(
            f"model {source.name!r}: {device} does not run {what}; start a worker with --device cpu, cuda or mps"
        )


def _check_precision(source: ModelSource, device: str) -> None:
    """Raises ModelLoadError where this device would compute in another class than the fingerprint names."""
    stored, precision = stored_precision(source.config), source.entry.precision
    if stored is not None and device != "mlx":
        raise ModelLoadError(
            f"model {source.name!r}: {source.entry.source} holds {stored} weights in MLX's format, which {device} "
            "cannot read; make it the model's source_mlx, and set source to the full weights"
        )
    quantises = device == "cpu" or device.startswith("cuda")
    if precision in (Precision.INT8, Precision.INT4) and stored is None and not quantises:
        raise ModelLoadError(
            f"model {source.name!r}: {device} cannot quantise, so precision {precision} needs weights that are stored "
            "quantised (for MLX, a quantised source_mlx); or use --device cuda or cpu"
        )
