"""A real browser for the tests of the page: Chromium without a window."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright


def find_chromium() -> str | None:
    """Return the path of SEMEL_TEST_CHROMIUM, which `make test` sets (scripts/with-chromium), or of one on PATH."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("SEMEL_TEST_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@contextmanager
def browser(executable: str) -> Iterator[Browser]:
    """Run the browser while the block runs."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield running
        running.close()
