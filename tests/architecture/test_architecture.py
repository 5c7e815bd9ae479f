"""The shape of the code: layers, cycles, sizes, names, what an import costs."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "semel"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if "versions" not in p.parts)
"""Every module but the migrations, which are never changed once they are released."""

HEAVY = {"torch", "mlx", "onnxruntime", "sentence_transformers", "transformers"}

MOST_LINES_IN_A_FUNCTION, MOST_LINES_IN_A_FILE = 40, 300


def _inside(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def _name(module: Path) -> str:
    parts = module.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(module: Path) -> Iterator[tuple[ast.AST, str]]:
    """Every import of semel's own modules, wherever it stands: in a function, or for the type checker alone."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "semel":
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names if alias.name.split(".")[0] == "semel")


def test_layers_point_one_way() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_import_leads_back_to_where_it_began() -> None:
    known = {_name(module) for module in MODULES}
    graph = {
        _name(module): {target if target in known else target.rpartition(".")[0] for _, target in _imports(module)}
        for module in MODULES
    }
    graph["semel"] = set()  # it offers `Client`, which is imported when it is first named
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a cycle of imports: {' → '.join(error.args[1])}")


LATE = ("__init__.py", "sync/__init__.py", "cli/", "backends/mlx/backend.py")
LATE += ("backends/torch/backend.py", "backends/torch/rerank.py")
"""Where an import waits until it is needed: commands start fast, and these modules load a framework."""


def test_imports_stand_at_the_top() -> None:
    for module in MODULES:
        if _inside(module).startswith(LATE):
            continue
        late = [target for node, target in _imports(module) if getattr(node, "col_offset", 0)]
        allowed = {"tracing.py": ["semel.otlp.Traces", "semel.otlp.Traces"]}.get(_inside(module), [])
        assert late == allowed, f"{_inside(module)} imports {late} late"


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


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """With its signature, and without its docstring."""
    docstring = function.body[0] if ast.get_docstring(function) else None
    documented = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - documented


def test_functions_fit_a_screen() -> None:
    long = [
        f"{_inside(module)}:{node.lineno} {node.name} has {_lines(node)} lines"
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) > MOST_LINES_IN_A_FUNCTION
    ]
    assert not long, long


def test_files_stay_small() -> None:
    lines = {_inside(module): len(module.read_text().splitlines()) for module in MODULES}
    assert not {name: count for name, count in lines.items() if count > MOST_LINES_IN_A_FILE}


def test_class_names_are_specific() -> None:
    banned = ("Manager", "Helper", "Util", "Utils", "Processor")
    classes = [
        node.name for m in MODULES for node in ast.walk(ast.parse(m.read_text())) if isinstance(node, ast.ClassDef)
    ]
    assert not [name for name in classes if name.endswith(banned)]


def test_sql_stands_in_the_cache_and_the_jobs_only() -> None:
    allowed = ("clock.py", "db.py", "sqlite_lock.py", "cache/", "tasks/jobs/", "migrations/", "sync/ledger/")
    allowed += ("sync/sources/query.py",)  # a statement of the user's
    assert not [_inside(m) for m in MODULES if not _inside(m).startswith(allowed) and "sqlalchemy" in m.read_text()]


def test_the_environment_is_read_in_the_settings_only() -> None:
    # The client stands alone; the stack, the bench and the tokenizer pass theirs on to their children; frameworks take
    # some of its settings from the environment alone, and these are set where the device is prepared.
    allowed = {"settings.py", "client/address.py", "cli/work/stack.py", "backends/shared/tokenizer_processes.py"}
    allowed |= {"cli/bench/run.py"}
    allowed |= {"backends/devices/find.py", "backends/vulkan/session.py"}
    assert {_inside(m) for m in MODULES if "os.environ" in m.read_text()} <= allowed


def test_opentelemetry_is_for_one_module_that_only_tracing_loads() -> None:
    # FastAPI and redis-py load its API where it is installed; semel's own part is loaded when traces are on.
    assert [m.name for m in MODULES if re.search(r"(from|import) opentelemetry", m.read_text())] == ["otlp.py"]
    assert [m.name for m in MODULES if "semel.otlp" in m.read_text()] == ["tracing.py"]


def test_unit_tests_mirror_the_package() -> None:
    unit = ROOT / "tests" / "unit"
    folders = {test.parent.relative_to(unit) for test in unit.rglob("test_*.py")}
    assert not [folder.as_posix() for folder in folders if not (PACKAGE / folder).is_dir()]


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("bench_*.py")), ids=lambda path: path.stem)
def test_benchmarks_import(path: Path) -> None:
    importlib.import_module(f"benchmarks.{path.stem}")
