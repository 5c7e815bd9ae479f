"""Where the server is."""

import os

DEFAULT_URL = "http://127.0.0.1:8700"
"""The address of `semel up`."""


def address_of(url: str | None, api_key: str | None) -> tuple[str, str]:
    """The server's address and the API key: those given, or those of the environment.

    An address that ends in /v1, as OpenAI's clients want it, stands for the same server.
    """
    given = (url or os.environ.get("SEMEL_URL") or DEFAULT_URL).rstrip("/")
    return given.removesuffix("/v1").rstrip("/"), api_key or os.environ.get("SEMEL_API_KEY") or ""
