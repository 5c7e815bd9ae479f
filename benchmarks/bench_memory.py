"""Does memory stay flat? A job of 2,000,000 short texts on the fake backend: growth of each process, and Redis.

With --mixed N: a job of N texts of 3 to 2,000 words with all-MiniLM-L6-v2, in parts, and the memory after each.

Peaks are sampled from outside, ten times per second; "start" is when the stack is ready and has embedded one text.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.corpora import SEED
from semel.cli.work.docstrings import standard_library_docstrings
from semel.cli.work.stack import throwaway_stack
from semel.client import Client


class Peaks:
    """Highest resident memory of processes by name, in MB, sampled by a thread."""

    def __init__(self) -> None:
        self.processes: dict[str, psutil.Process] = {}
        self.start: dict[str, float] = {}
        self.peak: dict[str, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def add(self, name: str, process: psutil.Process) -> None:
        """Sample a process from now on."""
        self.processes[name] = process
        self.start[name] = process.memory_info().rss / 1e6

    def _sample(self) -> None:
        while not self._stopping.wait(0.1):
            for name, process in list(self.processes.items()):
                try:
                    self.peak[name] = max(self.peak.get(name, 0), process.memory_info().rss / 1e6)
                except psutil.NoSuchProcess:
                    del self.processes[name]

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()


def main() -> None:
    """Print the rate, and the peak and growth of each process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=2_000_000)
    parser.add_argument("--mixed", type=int, default=0)
    options = parser.parse_args()
    if options.mixed:
        mixed(options.mixed)
        return
    config = 'default_model = "fake"\n[models.fake]\nsource = "fake:?dim=32"\n'
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in.txt"
        with source.open("w") as file:
            file.writelines(f"short text {i}\n" for i in range(options.texts))
        home = Path(folder) / "home"
        home.mkdir()
        with throwaway_stack(home, config=config) as url:
            with Client(url) as client:
                client.embed(["start"], model="fake")
            peaks = Peaks()
            for child in psutil.Process().children():
                peaks.add(_name(child), child)
            started = time.perf_counter()
            run_cli(source, Path(folder), url, peaks)
            seconds = time.perf_counter() - started
            peaks.stop()
    rate = options.texts / seconds
    print(f"{options.texts:,} texts in {seconds:.0f} s ({rate:,.0f} texts/s), vectors fetched and written")
    for name, peak in sorted(peaks.peak.items()):
        print(f"  {name:<8} peak {peak:.0f} MB, {peak - peaks.start[name]:.0f} MB above start")


def mixed(count: int) -> None:
    """Print the memory of the worker with a real model while it embeds texts of very different lengths."""
    words: list[str] = []
    for docstring in standard_library_docstrings():
        words += docstring.text.split()
    chance = random.Random(SEED)

    def text() -> str:
        length = int(3 * (2000 / 3) ** chance.random())  # as many of 3 to 10 words as of 600 to 2,000
        first = chance.randrange(len(words) - length)
        return " ".join(words[first : first + length])

    with tempfile.TemporaryDirectory() as home, throwaway_stack(Path(home)) as url, Client(url) as client:
        client.embed(["start"])
        worker = next(child for child in psutil.Process().children() if _name(child) == "worker")
        print(f"worker with the model loaded: {worker.memory_info().rss / 1e6:.0f} MB")
        started = time.perf_counter()
        for done in range(count // 10, count + 1, count // 10):
            client.wait(client.submit([text() for _ in range(count // 10)]).id)
            rate = done / (time.perf_counter() - started)
            print(f"  after {done:,} texts: {worker.memory_info().rss / 1e6:.0f} MB ({rate:.0f} texts/s)", flush=True)


def run_cli(source: Path, folder: Path, url: str, peaks: Peaks) -> None:
    """Embed the file with `semel embed` through the server, and sample that process too."""
    command = [sys.executable, "-m", "semel", "embed", str(source), "-o", str(folder / "out.npy"), "--url", url]
    environment = {**os.environ, "SEMEL_CONFIG": str(folder / "home" / "semel.toml")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    peaks.add("cli", psutil.Process(process.pid))
    _, stderr = process.communicate()
    if process.returncode:
        raise SystemExit(stderr.decode())


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    return next((word for word in ("serve", "worker") if word in words), "redis")


if __name__ == "__main__":
    main()
