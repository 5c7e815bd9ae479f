"""The shape of the code: layers, sizes, names, what an import costs."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "semel"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if "versions" not in p.parts)
HEAVY = {"torch", "mlx", "onnxruntime", "sentence_transformers", "transformers"}


def _names(module: Path) -> str:
    return str(module.relative_to(ROOT))


def test_layers_point_one_way() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import semel",
        "import semel.client",
        "import semel.api.app",
        "import semel.cli.work.embedding",
        "import semel.tasks.worker.worker",
    ],
)
def test_importing_loads_no_framework(code: str) -> None:
    check = f"{code}; import sys; print({HEAVY!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("arguments", [["-m", "semel", "--help"], ["-c", "import semel"]])
def test_help_and_the_package_load_next_to_nothing(arguments: list[str]) -> None:
    check = ["-X", "importtime", *arguments]
    done = subprocess.run([sys.executable, *check], capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not loaded & {*HEAVY, "numpy", "pydantic", "sqlalchemy", "celery", "httpx", "pyarrow", "fastapi"}


def test_the_pipeline_is_short() -> None:
    assert len((PACKAGE / "pipeline.py").read_text().splitlines()) <= 150


@pytest.mark.parametrize("module", MODULES, ids=_names)
def test_functions_fit_a_screen(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= 50, f"{module.name}:{node.lineno} {node.name} has {lines} lines"


@pytest.mark.parametrize("module", MODULES, ids=_names)
def test_names_say_what_a_thing_is(module: Path) -> None:
    banned = ("Manager", "Helper", "Util", "Processor")
    names = [n.name for n in ast.walk(ast.parse(module.read_text())) if isinstance(n, ast.ClassDef)]
    assert not [name for name in names if name.endswith(banned)]


@pytest.mark.parametrize("module", MODULES, ids=_names)
def test_every_module_opens_with_what_it_is_for(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text())) or not module.read_text().strip()


def test_sql_stands_in_the_cache_and_the_job_store_only() -> None:
    allowed = ("db.py", "cache/", "tasks/jobs/", "tasks/fleet/failover.py", "migrations/")
    for module in MODULES:
        inside = module.relative_to(PACKAGE).as_posix()
        if not inside.startswith(allowed):
            assert "sqlalchemy" not in module.read_text(), inside


def test_the_environment_is_read_in_the_settings_only() -> None:
    # The client stands alone; `up` and its stack pass the environment on to their children; what a GPU's framework
    # takes from the environment alone is set where the device is prepared.
    allowed = {"settings.py", "client/client.py", "cli/work/stack.py", "backends/devices/find.py"}
    allowed |= {"backends/vulkan/session.py"}
    readers = {m.relative_to(PACKAGE).as_posix() for m in MODULES if "os.environ" in m.read_text()}
    assert readers <= allowed


def test_opentelemetry_is_for_one_module_that_only_tracing_loads() -> None:
    # FastAPI and redis-py load its API where it is installed; semel's own part is loaded when traces are on.
    assert [m.name for m in MODULES if re.search(r"(from|import) opentelemetry", m.read_text())] == ["otlp.py"]
    tracing = (PACKAGE / "tracing.py").read_text()
    assert [m.name for m in MODULES if "semel.otlp" in m.read_text()] == ["tracing.py"]
    assert not re.search(r"^(from|import) semel.otlp", tracing, re.MULTILINE)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("bench_*.py")), ids=lambda path: path.stem)
def test_benchmarks_import(path: Path) -> None:
    importlib.import_module(f"benchmarks.{path.stem}")
