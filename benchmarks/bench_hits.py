"""How many hits per second over HTTP? One text per request on 16 connections, and a bare FastAPI route in the same run.

The peer answers with the same bytes and looks nothing up, so it shows the most that the web framework can do on this
machine. The client runs here too, on plain sockets, because an HTTP library in Python would take more of the cores
than the server.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from semel.cli.work.parts import free_port
from semel.cli.work.stack import throwaway_stack

TEXTS = [f"hot text number {i}" for i in range(256)]

_PEER = """
import sys
import uvicorn
from fastapi import Body, FastAPI, Response

app = FastAPI()
answer = open(sys.argv[2], "rb").read()

@app.post("/v1/embeddings")
def embeddings(body: dict = Body()) -> Response:
    return Response(answer, media_type="application/json")

uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
"""


def main() -> None:
    """Print the rates of each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, throwaway_stack(Path(home)) as url:
        answers = [httpx.post(f"{url}/v1/embeddings", json=body(text)).raise_for_status() for text in TEXTS]
        sample = Path(home) / "answer.json"
        sample.write_bytes(answers[0].content)
        with peer(sample) as peer_url:
            for _ in range(options.rounds):
                ours = asyncio.run(rate(url, options.requests, options.connections))
                theirs = asyncio.run(rate(peer_url, options.requests, options.connections))
                print(f"hits: {ours:,.0f} requests/s; a bare route {theirs:,.0f}/s; ratio {ours / theirs:.2f}")


def body(text: str) -> dict[str, str]:
    """The body of one request."""
    return {"input": text, "model": "minilm", "encoding_format": "base64"}


@contextmanager
def peer(answer: Path) -> Iterator[str]:
    """Run the bare route in a process; yields its URL."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", _PEER, str(port), str(answer)])
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                httpx.get(url)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


async def rate(url: str, requests: int, connections: int) -> float:
    """Requests per second. Each connection sends its next request when it has the answer to the last."""
    host, port = url.removeprefix("http://").split(":")
    started = time.perf_counter()
    await asyncio.gather(*(client(host, int(port), requests // connections) for _ in range(connections)))
    return requests / (time.perf_counter() - started)


async def client(host: str, port: int, requests: int) -> None:
    """Send `requests` requests on one connection."""
    reader, writer = await asyncio.open_connection(host, port)
    head = "POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: "
    for i in range(requests):
        content = json.dumps(body(TEXTS[i % len(TEXTS)]))
        writer.write(f"{head}{len(content)}\r\n\r\n{content}".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"unexpected answer: {answer!r}")
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
    writer.close()


if __name__ == "__main__":
    main()
