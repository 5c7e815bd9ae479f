"""The stack of child processes, with small `python -c` children."""

import io
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from semel.cli.work import stack as stack_module
from semel.cli.work.parts import Part
from semel.cli.work.stack import Stack, describe_exit, throwaway_stack, until_stopped
from semel.errors import UnavailableError
from tests.support.processes import wait_until

SLEEP = "import time; time.sleep(60)"
IGNORE_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); {SLEEP}"


def part(name: str, code: str, **environment: str) -> Part:
    return Part(name, [sys.executable, "-S", "-c", code], environment)


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def stack(log: io.StringIO) -> Iterator[Stack]:
    """An empty stack, whose parts end with the test."""
    made = Stack(log)
    yield made
    made.stop()


@pytest.fixture
def signals() -> Iterator[None]:
    """Restore the handlers of this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ended(*parts: Part) -> bool:
    return all(one.process is not None and one.process.poll() is not None for one in parts)


def test_the_lines_of_all_parts_go_to_one_log_with_their_names(stack: Stack, log: io.StringIO) -> None:
    stack.start(part("api", "print('hello')"))
    stack.start(part("worker cpu", "import sys; print('careful', file=sys.stderr)"))
    wait_until(lambda: log.getvalue().count("\n") == 2)
    assert sorted(log.getvalue().splitlines()) == ["api          hello", "worker cpu   careful"]


def test_bytes_that_are_no_text_do_not_stop_the_log(stack: Stack, log: io.StringIO) -> None:
    stack.start(part("api", "import sys; sys.stdout.buffer.write(b'\\xff\\nnext\\n')"))
    wait_until(lambda: "next" in log.getvalue())


def test_a_part_gets_its_environment_on_top_of_ours(
    stack: Stack, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "kept")
    stack.start(part("api", "import os; print(os.environ['OURS'], os.environ['ITS'])", ITS="added"))
    wait_until(lambda: "kept added" in log.getvalue())


def test_a_part_reads_no_input(stack: Stack, log: io.StringIO) -> None:
    stack.start(part("api", "import sys; print(repr(sys.stdin.read()))"))
    wait_until(lambda: "''" in log.getvalue())


def test_a_part_that_died_is_started_again_after_a_pause(
    stack: Stack, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(stack_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    failing = part("worker cpu", "raise SystemExit(3)")
    stack.start(failing)
    for pause in (1, 2, 4):
        assert failing.process is not None
        failing.process.wait(10)
        stack.watch()
        line = f"worker cpu ended (exit code 3, see its last lines above); starting it again in {pause} s"
        assert line in log.getvalue()
        clock[0] += pause - 0.1
        stack.watch()
        assert failing.process is None, "the pause is not over"
        clock[0] += 0.2
        stack.watch()
        assert failing.process is not None


def test_the_pause_has_a_limit_and_a_steady_part_needs_none(
    stack: Stack, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(stack_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    failing = part("api", "raise SystemExit(1)")
    stack.start(failing)
    assert failing.process is not None
    failing.process.wait(10)
    failing.failures = 10
    stack.watch()
    assert "starting it again in 30 s" in log.getvalue()
    clock[0] += 31
    stack.watch()
    assert failing.process is not None
    failing.process.wait(10)
    clock[0] += 61
    stack.watch()
    assert "starting it again in 0 s" in log.getvalue()
    assert failing.failures == 0


def test_a_killed_part_is_reported_with_its_signal(stack: Stack, log: io.StringIO) -> None:
    sleeping = part("worker cpu", SLEEP)
    stack.start(sleeping)
    assert sleeping.process is not None
    sleeping.process.kill()
    sleeping.process.wait(10)
    assert stack.dead_part() == "worker cpu (killed by SIGKILL)"
    stack.watch()
    assert "worker cpu ended (killed by SIGKILL); starting it again in 1 s" in log.getvalue()


def test_a_stack_whose_parts_all_run_has_no_dead_part(stack: Stack) -> None:
    stack.start(part("api", SLEEP))
    stack.watch()
    assert stack.dead_part() is None


def test_a_part_that_waits_for_its_restart_counts_as_dead(stack: Stack) -> None:
    failing = part("api", "raise SystemExit(1)")
    stack.start(failing)
    assert failing.process is not None
    failing.process.wait(10)
    stack.watch()
    assert stack.dead_part() == "api (not running)"


def test_parts_end_in_the_reverse_order_of_their_start(
    stack: Stack, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [part(name, SLEEP) for name in ("redis", "api", "worker cpu")]
    for one in parts:
        stack.start(one)
    order: list[str] = []
    for one in parts:
        process = one.process
        assert process is not None
        send = process.send_signal
        monkeypatch.setattr(process, "send_signal", lambda n, send=send, name=one.name: (order.append(name), send(n)))
    stack.stop()
    assert order == ["worker cpu", "api", "redis"]
    assert ended(*parts)


def test_a_part_that_ignores_sigterm_is_killed(stack: Stack, log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "_GRACE_S", 0.05)
    deaf = part("worker cpu", IGNORE_SIGTERM)
    stack.start(deaf)
    wait_until(lambda: "deaf" in log.getvalue())
    stack.stop()
    assert "worker cpu did not end within 0.05 s; killing it" in log.getvalue()
    assert deaf.process is not None
    assert deaf.process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sends a signal when the parent ends")
def test_a_part_does_not_outlive_its_parent(log: io.StringIO, stack: Stack) -> None:
    code = (
        "import sys, os, signal; sys.path.insert(0, os.environ['ROOT'])\n"
        "from semel.cli.work.stack import Stack; from semel.cli.work.parts import Part\n"
        f"child = Part('child', [sys.executable, '-S', '-c', {SLEEP!r}])\n"
        "Stack(sys.stdout).start(child); print(child.process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(stack_module.__file__).parents[3]
    stack.start(Part("parent", [sys.executable, "-c", code], {"ROOT": str(root)}))
    wait_until(lambda: bool(log.getvalue().split()[1:]))
    child = int(log.getvalue().split()[1])
    wait_until(lambda: not _runs(child))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (None, "not running"),
        (0, "exit code 0, see its last lines above"),
        (2, "exit code 2, see its last lines above"),
        (-15, "killed by SIGTERM"),
    ],
)
def test_an_exit_code_is_a_reason(code: int | None, reason: str) -> None:
    assert describe_exit(code) == reason


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_stack(stack: Stack, log: io.StringIO, number: signal.Signals) -> None:
    sleeping = part("api", SLEEP)
    with until_stopped(stack) as stopping:
        stack.start(sleeping)
        os.kill(os.getpid(), number)
        assert stopping()
    assert "semel        stopping" in log.getvalue()
    assert ended(sleeping)


@pytest.mark.usefixtures("signals")
def test_an_error_in_the_block_stops_the_parts_too(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "_WATCH_S", 0.01)
    sleeping = part("api", SLEEP)

    def fail_while_running() -> None:
        with until_stopped(stack) as stopping:
            stack.start(sleeping)
            assert not stopping()
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        fail_while_running()
    assert ended(sleeping)


@pytest.fixture
def throwaway_parts(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """The parts of a throw-away stack, which only sleep; the stack is ready at once."""
    made: list[Part] = []

    def sleeping(name: str, *arguments: str, environment: dict[str, str]) -> Part:
        made.append(part(name, SLEEP, **environment))
        return made[-1]

    monkeypatch.setattr(stack_module, "semel_part", sleeping)
    monkeypatch.setattr(stack_module, "redis_part", lambda port, home: sleeping("redis", environment={"P": str(port)}))
    monkeypatch.setattr(stack_module, "is_ready", lambda _: True)
    return made


def test_a_throwaway_stack_keeps_everything_in_its_folder(tmp_path: Path, throwaway_parts: list[Part]) -> None:
    (tmp_path / "home").mkdir()
    with throwaway_stack(tmp_path / "home", config='default_model = "fake"\n') as url:
        assert not ended(*throwaway_parts)
    redis, api, worker = throwaway_parts
    assert [one.name for one in throwaway_parts] == ["redis", "api", "worker cpu"]
    assert api.environment == worker.environment
    home = tmp_path / "home"
    assert api.environment["SEMEL_HOME"] == str(home)
    assert api.environment["SEMEL_DATABASE_URL"] == f"sqlite:///{home / 'semel.db'}"
    assert api.environment["SEMEL_REDIS_URL"] == f"redis://127.0.0.1:{redis.environment['P']}/0"
    assert Path(api.environment["SEMEL_CONFIG"]).read_text() == 'default_model = "fake"\n'
    assert url == f"http://127.0.0.1:{api.environment['SEMEL_PORT']}"
    assert ended(*throwaway_parts)


def test_a_part_that_dies_while_starting_is_named_with_its_log(
    tmp_path: Path, throwaway_parts: list[Part], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dying = part("redis", "import time; print('cannot bind', flush=True); time.sleep(0.1); raise SystemExit(1)")
    monkeypatch.setattr(stack_module, "redis_part", lambda *_: dying)
    monkeypatch.setattr(stack_module, "is_ready", lambda _: False)
    started = time.monotonic()
    with (
        pytest.raises(UnavailableError, match=r"redis \(exit code 1, .*\) ended while the stack was starting"),
        throwaway_stack(tmp_path),
    ):
        pass
    assert time.monotonic() - started < 30, "it does not wait for the whole time"
    assert "redis        cannot bind" in capsys.readouterr().err
    assert ended(*throwaway_parts)


def test_a_stack_that_is_never_ready_is_given_up(
    tmp_path: Path, throwaway_parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_module, "is_ready", lambda _: False)
    monkeypatch.setattr(stack_module, "_START_S", 0.01)
    with (
        pytest.raises(UnavailableError, match="the stack was not ready after 0 s; its log is above"),
        throwaway_stack(tmp_path),
    ):
        pass
    assert ended(*throwaway_parts)
