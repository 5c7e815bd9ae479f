"""How long does a batch file take when the cache has everything? Upload, run, output file.

The peer is the shortest way that a Python server could go: read the lines, take the vectors of a dictionary in
memory, write the output lines with the standard library's json.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import openai

from semel.cli.work.stack import throwaway_stack
from semel.client import Client

_CONFIG = 'default_model = "fake"\n[models.fake]\nsource = "fake:?dim=384"\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    texts = [f"text number {i} of a batch file" for i in range(options.lines)]
    with tempfile.TemporaryDirectory() as home, throwaway_stack(Path(home), config=_CONFIG) as url:
        source, target = Path(home) / "in.jsonl", Path(home) / "out.jsonl"
        source.write_text("".join(f"{json.dumps(request(i, text))}\n" for i, text in enumerate(texts)))
        with Client(url) as client:
            job = client.wait(client.submit(texts, model="fake").id)
            vectors = dict(zip(texts, client.results(job.id), strict=True))
        for _ in range(options.rounds):
            ours, theirs = batch(url, source, target), peer(source, target, vectors)
            print(
                f"batch of {options.lines:,} lines, all hits: {ours:.1f} s from upload to output file; "
                f"a dictionary and json {theirs:.1f} s; ratio {theirs / ours:.2f}"
            )


def request(number: int, text: str) -> dict[str, object]:
    body = {"model": "fake", "input": text}
    return {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/embeddings", "body": body}


def batch(url: str, source: Path, target: Path) -> float:
    """Seconds, with OpenAI's own client."""
    started = time.perf_counter()
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        with source.open("rb") as file:
            stored = client.files.create(file=file, purpose="batch")
        made = client.batches.create(input_file_id=stored.id, endpoint="/v1/embeddings", completion_window="24h")
        while made.status not in ("completed", "failed"):
            time.sleep(0.1)
            made = client.batches.retrieve(made.id)
        if made.status != "completed" or made.error_file_id or not made.output_file_id:
            raise SystemExit(f"the batch ended as {made}")
        details = made.usage.input_tokens_details.cached_tokens if made.usage else 0
        if not made.usage or details != made.usage.input_tokens:
            raise SystemExit(f"not all were hits: {made.usage}")
        client.files.content(made.output_file_id).write_to_file(target)
    return time.perf_counter() - started


def peer(source: Path, target: Path, vectors: dict[str, np.ndarray]) -> float:
    """Seconds for the same lines from a dictionary."""
    started = time.perf_counter()
    with source.open() as lines, target.open("w") as out:
        for line in lines:
            wanted = json.loads(line)
            embedding = vectors[wanted["body"]["input"]].tolist()
            body = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": embedding}]}
            answer = {"custom_id": wanted["custom_id"], "response": {"status_code": 200, "body": body}}
            out.write(json.dumps(answer) + "\n")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
