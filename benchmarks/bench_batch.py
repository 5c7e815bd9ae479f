"""How long does a batch file take if every text is a hit? The time covers upload, run and output file.

The peer is the least that a Python server could do: read the lines, look the vectors up in a dictionary in memory, and
write the output lines with the standard library's json.
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
    """Print the times of each round."""
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
    """One line of the batch file."""
    body = {"model": "fake", "input": text}
    return {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/embeddings", "body": body}


def batch(url: str, source: Path, target: Path) -> float:
    """Seconds from upload to output file, with OpenAI's own client."""
    started = time.perf_counter()
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        with source.open("rb") as file:
            stored = client.files.create(file=file, purpose="batch")
        run = client.batches.create(input_file_id=stored.id, endpoint="/v1/embeddings", completion_window="24h")
        while run.status not in ("completed", "failed"):
            time.sleep(0.1)
            run = client.batches.retrieve(run.id)
        if run.status != "completed" or run.error_file_id or not run.output_file_id:
            raise SystemExit(f"the batch ended as {run}")
        details = run.usage.input_tokens_details.cached_tokens if run.usage else 0
        if not run.usage or details != run.usage.input_tokens:
            raise SystemExit(f"not all texts were hits: {run.usage}")
        client.files.content(run.output_file_id).write_to_file(target)
    return time.perf_counter() - started


def peer(source: Path, target: Path, vectors: dict[str, np.ndarray]) -> float:
    """Seconds for the same lines with a dictionary and json."""
    started = time.perf_counter()
    with source.open() as lines, target.open("w") as out:
        for line in lines:
            batch_request = json.loads(line)
            embedding = vectors[batch_request["body"]["input"]].tolist()
            body = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": embedding}]}
            answer = {"custom_id": batch_request["custom_id"], "response": {"status_code": 200, "body": body}}
            out.write(json.dumps(answer) + "\n")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
