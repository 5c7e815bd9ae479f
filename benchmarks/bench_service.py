"""What does the service cost? A cold job against a local run, a warm job, and the latency of one text.

The embedded stack (API, Redis, worker, SQLite) and the client all run on this machine.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.bench_cold import Semel
from benchmarks.corpora import distinct, sentences
from semel.cli.work.stack import throwaway_stack
from semel.client import Client
from semel.tasks.worker.models import LoadedModels


def main() -> None:
    """Print the rates of jobs and the latencies of single texts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--warm", type=int, default=200_000)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = options.device
    texts = distinct(sentences(min(options.texts, 3000)), options.texts)
    local = local_rate(texts, device)
    with (
        tempfile.TemporaryDirectory() as home,
        throwaway_stack(Path(home), device=device) as url,
        Client(url) as client,
    ):
        seconds = job(client, texts)
        print(
            f"cold job: {len(texts) / seconds:.0f} texts/s through the service, {local:.0f}/s local, "
            f"ratio {len(texts) / seconds / local:.2f}"
        )
        many = (texts * (options.warm // len(texts) + 1))[: options.warm]
        print(f"warm job, repeated texts: {len(many) / job(client, many):,.0f} texts/s from submit to completed")
        print(f"one hot text: p50 {latency(url, ['hot text'] * options.requests):.2f} ms")
        fresh = [f"{text} once more" for text in texts[: options.requests]]
        cold = latency(url, fresh)
    paced, bare = bare_latency(fresh, device, every_s=cold / 1000), bare_latency(fresh, device)
    library = library_latency(fresh, device)
    print(
        f"one cold text: p50 {cold:.2f} ms; SentenceTransformer.encode {library:.2f} ms, difference "
        f"{cold - library:.2f} ms; semel's own encoder alone at the same pace {paced:.2f} ms, difference "
        f"{cold - paced:.2f} ms; back to back, out of warm caches, {bare:.2f} ms"
    )
    with (
        tempfile.TemporaryDirectory() as home,
        throwaway_stack(Path(home), config='default_model = "fake"\n[models.fake]\nsource = "fake:?dim=384"\n') as url,
        Client(url) as client,
    ):
        others = [f"distinct text number {i} of a warm job" for i in range(options.warm)]
        job(client, others, model="fake")
        print(f"warm job, distinct texts: {len(others) / job(client, others, model='fake'):,.0f} texts/s")


def local_rate(texts: list[str], device: str) -> float:
    """Texts per second of `semel embed --local`."""
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as folder:
        semel = Semel(Path(home), device)
        seconds, _ = semel.embed(texts, Path(folder))
        semel.engine.close()
    return len(texts) / seconds


def job(client: Client, texts: list[str], model: str = "minilm") -> float:
    """Seconds from the submission of a job to its completion."""
    started = time.perf_counter()
    done = client.wait(client.submit(texts, model=model).id)
    if done.counts.done != len(texts) or done.counts.failed:
        raise SystemExit(f"the job ended as {done}")
    return time.perf_counter() - started


def latency(url: str, texts: list[str]) -> float:
    """Median milliseconds of a request with one text, on one kept connection."""
    times = []
    with httpx.Client(base_url=url) as http:
        for text in texts:
            started = time.perf_counter()
            http.post("/v1/embeddings", json={"input": text, "model": "minilm"}).raise_for_status()
            times.append(time.perf_counter() - started)
    return statistics.median(times[10:]) * 1000


def bare_latency(texts: list[str], device: str, *, every_s: float = 0.0) -> float:
    """Median milliseconds to tokenise a text and run the model, with no service around it.

    Args:
        texts: embedded one by one.
        every_s: seconds from the start of one text to the start of the next. A core that was idle, and whose caches
            other processes used meanwhile, takes up to twice as long as one in a tight loop.
    """
    with tempfile.TemporaryDirectory() as home:
        semel = Semel(Path(home), device)
        models: LoadedModels = semel.models
        backend = models.get("minilm").backend
        times = []
        for text in texts:
            started = time.perf_counter()
            backend.embed_texts([text])
            times.append(time.perf_counter() - started)
            time.sleep(max(0.0, every_s - times[-1]))
        semel.engine.close()
    return statistics.median(times[10:]) * 1000


def library_latency(texts: list[str], device: str) -> float:
    """Median milliseconds of `SentenceTransformer.encode` at its defaults, one text per call."""
    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as home:
        semel = Semel(Path(home), device)
        peer = SentenceTransformer(str(semel.models._source("minilm").path), device=device)
        semel.engine.close()
    times = []
    for text in texts:
        started = time.perf_counter()
        peer.encode([text])
        times.append(time.perf_counter() - started)
    return statistics.median(times[10:]) * 1000


if __name__ == "__main__":
    main()
