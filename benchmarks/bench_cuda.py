"""How fast is semel on an NVIDIA GPU, next to SentenceTransformer.encode in float16 and to the GPU's own limit?

All in one process, in turn: the peer at its best batch size, the forward pass alone, the engine with its tokenising,
and the whole path of `semel embed --local` with an empty SQLite cache. `cuda_run.sh` runs it after the tests.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from benchmarks.bench_cold import Semel
from benchmarks.corpora import distinct, paragraphs, sentences
from semel import collector
from semel.backends.base import Backend, Tokens
from semel.backends.batching import Budgets, Item, LengthSorted
from semel.backends.devices.measure import TEXTS, agreement, embed_all
from semel.backends.torch import packed
from semel.values.vectors import unit_rows

_CHUNK = 1024
"""Texts in one submission, as in a job."""


def main() -> None:
    """Measure sentences, then paragraphs, then single texts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--paragraphs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--submitters", type=int, default=8, help="threads that submit chunks, as in a worker")
    options = parser.parse_args()
    collector.relax()  # as in a worker
    limits(options.device)
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as other:
        semel = Semel(Path(home), options.device)
        backend = semel.models.get("minilm").backend
        print("semel:", backend.get_model_info().why)
        plain = plain_layers(Path(other), options.device)
        for name, texts in (
            ("sentences", distinct(sentences(3000), options.sentences)),
            ("paragraphs", distinct(paragraphs(500), options.paragraphs)),
        ):
            measure(name, texts, semel, plain, options)
        single_texts(semel, plain)
        compare_with_cpu(semel)  # last, because a model on the CPU limits the heaps of this process
        semel.engine.close()


def limits(device: str) -> None:
    """Print the rates of a large product and of a large copy on this device."""
    if not torch.cuda.is_available():
        print(f"{device}: torch {torch.__version__}")
        return
    left, right = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    product_s = on_gpu(lambda: left @ right)
    source = torch.empty(1 << 32, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_s = on_gpu(lambda: target.copy_(source))
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}: bfloat16 product "
        f"{2 * 8192**3 / product_s / 1e12:.0f} TFLOP/s, copy {2 * (1 << 32) / copy_s / 1e12:.2f} TB/s"
    )


def on_gpu(work: Callable[[], object], times: int = 10) -> float:
    """Median seconds of `work` by the GPU's own clock."""
    seconds = []
    for _ in range(times + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1000)
    return statistics.median(seconds[3:])


def plain_layers(home: Path, device: str) -> Backend:
    """The same model with transformers' own layers, which pad each batch."""
    own, packed.rebuild = packed.rebuild, lambda *_: (None, "plain layers: for comparison")
    try:
        return Semel(home, device).models.get("minilm").backend
    finally:
        packed.rebuild = own


def compare_with_cpu(semel: Semel) -> None:
    """Print how far the vectors of this device and of the CPU agree."""
    with tempfile.TemporaryDirectory() as home:
        cpu = Semel(Path(home), "cpu")
        texts = [*TEXTS, *sentences(200), *paragraphs(50)]
        vectors = {one.device: embed_all(one.engine, one.models.get("minilm").backend, texts) for one in (semel, cpu)}
        print("CPU:", cpu.models.get("minilm").backend.get_model_info().why)
        for one, other, lowest, mean in agreement(vectors):
            print(f"cosines of {len(texts)} texts on {one} and {other}: lowest {lowest:.5f}, mean {mean:.5f}")
        cpu.engine.close()


def measure(name: str, texts: list[str], semel: Semel, plain: Backend, options: argparse.Namespace) -> None:
    """Print the rates of the peer and of semel's parts for some texts."""
    backend = semel.models.get("minilm").backend
    started = time.perf_counter()
    tokens = backend.tokenize(texts)
    tokenising_s = time.perf_counter() - started
    count = sum(len(each.ids) for each in tokens)
    print(f"== {name}: {len(texts):,} texts, {count / len(texts):.1f} tokens each")
    print(f"tokenizer alone, all at once: {len(texts) / tokenising_s:,.0f} texts/s")
    batches = in_batches(backend, tokens)
    for label, each in (("packed", backend), ("padded", plain)):
        each.forward(batches[0])
        seconds = statistics.median(forward_s(each, batches) for _ in range(options.rounds))
        # Products with weights: 6 layers of 12 · 384² weights, 2 operations each.
        flops = 21.2e6 * count / seconds / 1e12
        print(f"forward alone, {label}: {len(texts) / seconds:,.0f} texts/s, {flops:.0f} TFLOP/s with the weights")
    size, peer = best_batch(texts[: len(texts) // 5], semel)
    theirs, ours, whole = [], [], []
    for _ in range(options.rounds):
        seconds, reference = peer_run(peer, texts, size)
        theirs.append(seconds)
        ours.append(timed(lambda: engine_run(semel, texts, options.submitters)))
        with tempfile.TemporaryDirectory() as folder:
            seconds, vectors = semel.embed(texts, Path(folder))
        whole.append(seconds)
    cosine = (unit_rows(vectors) * unit_rows(reference)).sum(1).min()
    their_s, our_s, whole_s = (statistics.median(each) for each in (theirs, ours, whole))
    print(
        f"sentence-transformers float16, batch {size}: {len(texts) / their_s:,.0f} texts/s; engine "
        f"{len(texts) / our_s:,.0f}/s = {their_s / our_s:.1f} times; semel embed --local {len(texts) / whole_s:,.0f}/s "
        f"= {their_s / whole_s:.1f} times; lowest cosine {cosine:.5f}"
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def forward_s(backend: Backend, batches: Sequence[Sequence[Tokens]]) -> float:
    """Seconds of the forward passes of all batches."""
    return timed(lambda: [backend.forward(batch) for batch in batches])


def in_batches(backend: Backend, tokens: list) -> list[list]:  # type: ignore[type-arg]
    """The batches that the engine makes of tokenised texts."""
    budgets, waiting = Budgets(None), LengthSorted()
    budgets.add(backend)
    waiting.add([Item(each, None, i) for i, each in enumerate(tokens)])
    batches = []
    while len(waiting):
        batches.append([item.tokens for item in waiting.pop_batch(lambda longest: budgets.of(backend, longest))])
    return batches


def engine_run(semel: Semel, texts: list[str], submitters: int) -> None:
    """Run texts through the engine in chunks, as a worker does."""
    backend = semel.models.get("minilm").backend

    def run(start: int) -> int:
        return sum(len(part.indices) for part in semel.engine.submit(backend, texts[start : start + _CHUNK]))

    with ThreadPoolExecutor(submitters) as pool:
        done = sum(pool.map(run, range(0, len(texts), _CHUNK)))
    if done != len(texts):
        raise SystemExit(f"{done} of {len(texts)} texts have a vector")


def best_batch(texts: list[str], semel: Semel) -> tuple[int, object]:
    """The batch size at which sentence-transformers is fastest here in float16; and its model."""
    from sentence_transformers import SentenceTransformer

    path = str(semel.models._source("minilm").path)
    peer = SentenceTransformer(path, device=semel.device, model_kwargs={"dtype": torch.float16})
    rates = {}
    for size in (128, 512, 2048):
        peer.encode(texts[:size], batch_size=size)
        rates[size] = len(texts) / peer_run(peer, texts, size)[0]
    print("sentence-transformers float16:", ", ".join(f"batch {size}: {rate:,.0f}/s" for size, rate in rates.items()))
    return max(rates, key=lambda size: rates[size]), peer


def peer_run(peer: object, texts: list[str], size: int) -> tuple[float, np.ndarray]:
    """Seconds and vectors of the peer."""
    started = time.perf_counter()
    vectors = peer.encode(texts, batch_size=size)  # type: ignore[attr-defined]
    return time.perf_counter() - started, np.asarray(vectors, np.float32)


def single_texts(semel: Semel, plain: Backend) -> None:
    """Print the median latency of one short text: the forward pass, as a graph and without, and the engine."""
    backend = semel.models.get("minilm").backend
    texts = [f"one sentence, number {i}, as a user would ask it" for i in range(300)]
    for label, each in (("graph", backend), ("padded, no graph", plain)):
        seconds = [timed(lambda each=each, text=text: each.embed_texts([text])) for text in texts]  # type: ignore[misc]
        print(f"one text, tokenising and forward, {label}: p50 {statistics.median(seconds[50:]) * 1000:.2f} ms")
    seconds = [timed(lambda text=text: list(semel.engine.submit(backend, [text]))) for text in texts]  # type: ignore[misc]
    print(f"one text through the engine: p50 {statistics.median(seconds[50:]) * 1000:.2f} ms")


if __name__ == "__main__":
    main()
