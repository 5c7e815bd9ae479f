"""Does memory stay flat? A job of 2,000,000 short texts on the fake backend: growth of each process, and Redis.

Peaks are sampled from outside, ten times per second; "start" is when the stack is ready and has embedded one text.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

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
    options = parser.parse_args()
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
