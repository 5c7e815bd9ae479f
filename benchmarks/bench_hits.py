"""How many hits a second over HTTP? 16 connections, one text a request, against a bare FastAPI route in the same run.

The peer answers the same bytes without looking anything up: it is the ceiling of the web framework on this machine.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

import httpx

from semel.cli.stack import throwaway_stack

_PEER = """
import sys, uvicorn
from fastapi import Body, FastAPI, Response
app = FastAPI()
answer = open(sys.argv[2], "rb").read()

@app.post("/v1/embeddings")
def embeddings(body: dict = Body()) -> Response:
    return Response(answer, media_type="application/json")

uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    texts = [f"hot text number {i}" for i in range(256)]
    with tempfile.TemporaryDirectory() as home, throwaway_stack(Path(home)) as url:
        sample = [httpx.post(f"{url}/v1/embeddings", json=_body(text)).raise_for_status() for text in texts][0]
        rates = []
        for _ in range(3):
            ours = asyncio.run(rate(url, texts, options.requests, options.connections))
            rates.append(ours)
            print(f"hits: {ours:,.0f} requests/s of one text, {options.connections} connections")
    _ = sample


def _body(text: str) -> dict[str, str]:
    return {"input": text, "model": "minilm", "encoding_format": "base64"}


async def rate(url: str, texts: list[str], requests: int, connections: int) -> float:
    host, port = url.removeprefix("http://").split(":")
    started = time.perf_counter()
    await asyncio.gather(*(_client(host, int(port), texts, requests // connections) for _ in range(connections)))
    return requests / (time.perf_counter() - started)


async def _client(host: str, port: int, texts: list[str], requests: int) -> None:
    """Plain sockets: a Python HTTP library would take more of the two cores than the server."""
    reader, writer = await asyncio.open_connection(host, port)
    for i in range(requests):
        body = json.dumps(_body(texts[i % len(texts)])).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nhost: semel\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"unexpected answer: {answer!r}")
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
    writer.close()


if __name__ == "__main__":
    main()
