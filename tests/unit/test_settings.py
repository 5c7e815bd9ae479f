"""Settings: where they come from, which of them wins, and what is said about a wrong one."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from semel.errors import BadInputError
from semel.settings import Settings, load_settings
from semel.values.text import Lane


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without settings, and a working folder without a semel.toml."""
    for name in [name for name in os.environ if name.startswith("SEMEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_argument_wins_over_the_environment_and_the_environment_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "semel.toml").write_text('port = 1\nhost = "file"\ndevice = "cpu"\n')
    monkeypatch.setenv("SEMEL_PORT", "2")
    monkeypatch.setenv("SEMEL_HOST", "environment")
    settings = load_settings(port=3)
    assert (settings.port, settings.host, settings.device) == (3, "environment", "cpu")


def test_an_argument_of_none_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMEL_PORT", "2")
    assert load_settings(port=None).port == 2


def test_the_configuration_may_lie_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "semel.toml").write_text("port = 1\n")
    (tmp_path / "other.toml").write_text("port = 2\n")
    monkeypatch.setenv("SEMEL_CONFIG", str(tmp_path / "other.toml"))
    assert load_settings().port == 2


def test_a_configuration_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMEL_CONFIG", "/nowhere/semel.toml")
    with pytest.raises(BadInputError, match=r"SEMEL_CONFIG is /nowhere/semel.toml, which is not an existing file"):
        load_settings()


def test_models_come_from_tables_of_the_file_and_keep_the_built_in_one(tmp_path: Path) -> None:
    (tmp_path / "semel.toml").write_text(
        '[models.bge]\nsource = "BAAI/bge"\nmax_tokens = 512\nprompts = { query = "find " }\n'
    )
    models = load_settings().all_models
    assert models.keys() == {"minilm", "bge"}
    assert (models["bge"].max_tokens, models["bge"].prompts) == (512, {"query": "find "})


def test_the_built_in_model_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "semel.toml").write_text('[models.minilm]\nsource = "/my/copy"\n')
    assert load_settings().all_models["minilm"].source == "/my/copy"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SEMEL_PORT", "99999", r"setting 'port' \(SEMEL_PORT or semel.toml\): .* got '99999'"),
        ("SEMEL_LOG_LEVEL", "loud", r"setting 'log_level' .*'debug', 'info'.* got 'loud'"),
        ("SEMEL_DATABASE_MAX_BYTES", "12", r"setting 'database_max_bytes'"),
        ("SEMEL_CPU_THREADS", "none", r"setting 'cpu_threads'.* got 'none'"),
        ("SEMEL_OTLP_ENDPOINT", "http://127.0.0.1:4318", r"setting 'otlp_endpoint'.*must include its path"),
    ],
)
def test_a_wrong_value_is_named_with_its_setting(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadInputError, match=message):
        load_settings()


def test_an_unknown_setting_in_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "semel.toml").write_text("prot = 1\n")
    with pytest.raises(BadInputError, match=r"setting 'prot' .*got 1"):
        load_settings()


def test_a_file_that_is_not_toml_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "semel.toml").write_text("port: 1\n")
    with pytest.raises(BadInputError, match="the settings cannot be read"):
        load_settings()


def test_broken_json_in_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMEL_REQUIRED_DEVICES", "[cuda")
    with pytest.raises(BadInputError, match="the settings cannot be read"):
        load_settings()


def test_the_name_of_a_model_for_one_device_is_reserved(tmp_path: Path) -> None:
    (tmp_path / "semel.toml").write_text('[models."m@mlx"]\nsource = "x"\n')
    with pytest.raises(BadInputError, match=r"cannot be named 'm@mlx': NAME@DEVICE is reserved"):
        load_settings()


def test_a_home_with_a_tilde_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = load_settings(home="~/semel", models_dir="models")
    assert settings.home == tmp_path / "semel"
    assert settings.models_dir == tmp_path / "models", "a relative folder is meant from the working folder"


def test_the_default_database_and_the_measurements_are_in_the_home(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    assert settings.database == f"sqlite:///{tmp_path}/semel.db"
    assert settings.measurements == tmp_path / "devices.json"


def test_a_database_of_ones_own_replaces_the_default() -> None:
    assert load_settings(database_url="postgresql://db/semel").database == "postgresql://db/semel"


def test_the_limit_of_the_queue_depends_on_the_lane() -> None:
    settings = load_settings(max_bulk_queue_s=10, max_interactive_queue_s=2)
    assert settings.max_queue_s == {Lane.BULK: 10, Lane.INTERACTIVE: 2}


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMEL_API_KEYS", "hush:admin")
    settings = load_settings()
    assert settings.api_keys.get_secret_value() == "hush:admin"
    assert "hush" not in repr(settings)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_a_remote_server_in_the_working_folder_must_be_named_by_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder may be a repository that somebody else made: it must not receive texts and the API key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEMEL_URL", raising=False)
    monkeypatch.delenv("SEMEL_CONFIG", raising=False)
    file = tmp_path / "semel.toml"
    file.write_text('url = "https://collects.example"\n')
    with pytest.raises(BadInputError, match=r"semel\.toml names the server https://collects\.example"):
        load_settings()
    assert load_settings(url="https://mine.example").url == "https://mine.example"
    monkeypatch.setenv("SEMEL_URL", "https://mine.example")
    assert load_settings().url == "https://mine.example"
    monkeypatch.delenv("SEMEL_URL")
    monkeypatch.setenv("SEMEL_CONFIG", str(file))
    assert load_settings().url == "https://collects.example"
    monkeypatch.delenv("SEMEL_CONFIG")
    file.write_text('url = "http://127.0.0.1:8700"\n')
    assert load_settings().url == "http://127.0.0.1:8700"
