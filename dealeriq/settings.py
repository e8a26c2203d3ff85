"""Every setting, typed, from one file and the environment; each value knows where it came from.

The environment wins over the file, the file over what a local system that runs on the data folder makes known
(`dealeriq.running`), and that over the default. `DEALERIQ_KAFKA__BOOTSTRAP` is `bootstrap` in
the section `[kafka]` of `dealeriq.toml`. The file is the one that `DEALERIQ_CONFIG` names, else
`dealeriq.toml` in the working folder.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import AnyUrl, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from connectors.neo4j.settings import GraphSettings
from connectors.settings import (
    ConnectSettings,
    KafkaSettings,
    LakeSettings,
    MlflowSettings,
    RedisSettings,
    RegistrySettings,
)
from dealeriq.http.settings import HttpSettings
from dealeriq.inference.settings import InferenceSettings
from dealeriq.running import found as running_system
from dealeriq.search.settings import SearchSettings
from dealeriq.warehouse.settings import WarehouseSettings
from models.recommend.settings import RecommendSettings
from models.settings import (
    CanarySettings,
    EmbeddingSettings,
    ImageSettings,
    MonitorSettings,
    ReindexSettings,
    RuntimeSettings,
    TextSettings,
    TrainerSettings,
)
from schemas.errors import DealerIQError
from streams.agents.settings import AgentSettings
from streams.hybrid.settings import HybridSettings
from streams.leads.settings import LeadSettings
from streams.scoring.settings import InsightSettings, ScoringSettings

__all__ = [
    "AgentSettings",
    "CanarySettings",
    "DemoSettings",
    "EmbeddingSettings",
    "FeatureSettings",
    "FlinkSettings",
    "GraphSettings",
    "HttpSettings",
    "HybridSettings",
    "ImageSettings",
    "InferenceSettings",
    "InsightSettings",
    "MonitorSettings",
    "RecommendSettings",
    "ReindexSettings",
    "RuntimeSettings",
    "ScoringSettings",
    "SearchSettings",
    "Settings",
    "SettingsError",
    "TextSettings",
    "TrainerSettings",
    "Value",
    "VerifySettings",
    "load",
]

_PREFIX = "DEALERIQ_"
_DELIMITER = "__"
# Variables with the prefix that are no settings of the system: where the runtime finds and keeps its own tools.
_OTHER = frozenset({"CONFIG", "CACHE_DIR", "JAVA_HOME", "MAVEN_URL", "METRICS_PORT", "PYTHON"})


class SettingsError(DealerIQError):
    """A setting has a name or a value that is not allowed. Remedy: mend it where the message says it stands."""

    remedy = "mend it there; `dealeriq config` lists every setting with its meaning"
    exit_code = 3


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class FlinkSettings(_Section):
    """The Flink session cluster and how the jobs run on it."""

    url: str | None = Field(None, description="REST address of the session cluster; unset: started locally")
    parallelism: int = Field(2, ge=1, le=1024, description="parallel instances of each operator")
    slots: int = Field(8, ge=1, le=256, description="task slots of the local TaskManager")
    heap_mb: int = Field(640, ge=256, description="heap of the local TaskManager, MiB")
    checkpoint_interval_ms: int = Field(5_000, ge=100, description="time between checkpoints, ms")
    checkpoint_dir: str | None = Field(None, description="URI of the checkpoints; unset: in the data folder")
    savepoint_dir: str | None = Field(None, description="URI of the savepoints; unset: in the data folder")
    lib_dir: str | None = Field(
        None, description="folder of jars for submitting; unset: made by the local runtime"
    )
    mini_batch_ms: int = Field(
        40, ge=1, le=60_000, description="longest wait of a mini-batch before tiles go out, ms"
    )
    tiles_per_s: int = Field(
        30_000,
        ge=1,
        description="most tiles a job sends a second on average; more changes share tiles and wait up to 10 s",
    )
    deduplicate: bool = Field(True, description="count an event id once within the horizon")
    deduplicate_horizon_h: float = Field(
        168.0, gt=0, description="how long an event id is remembered, h of processing"
    )


class FeatureSettings(_Section):
    """The feature store and the process that fills it."""

    project: str = Field(
        "dealeriq",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$",
        description="Feast project, part of every key in the online store; another one is another set of views",
    )
    batch_records: int = Field(5_000, ge=1, description="most tile records folded in one batch")
    poll_ms: int = Field(5, ge=1, description="longest wait to fill a batch, ms")


class VerifySettings(_Section):
    """The process that compares the stores with the log on a schedule."""

    every_s: float = Field(300.0, ge=1, description="seconds from the end of one run to the next")
    sample: int = Field(50, ge=1, description="dealers compared in a run, and as many products")
    most_s: float = Field(600.0, ge=1, description="longest run before it is given up, s")


class DemoSettings(_Section):
    """The demonstration on carried data."""

    orders: int | None = Field(None, ge=1, description="order lines to play; unset: the whole year")
    topics: list[str] = Field(
        ["dealers", "products", "promotions", "orders", "chats", "feedback"], description="topics to play"
    )
    speed: str = Field("20000", description="events per second, or `max`", pattern=r"^(max|[0-9]+(\.[0-9]+)?)$")


class Settings(BaseSettings):
    """Every setting of DealerIQ. An address that is set is used; one that is unset is started for you."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_nested_delimiter=_DELIMITER, extra="forbid", validate_assignment=True
    )

    data_dir: Path = Field(
        Path(".dealeriq"), description="where the local services keep data, logs and checkpoints"
    )
    kafka: KafkaSettings = Field(default_factory=lambda: KafkaSettings())
    registry: RegistrySettings = Field(default_factory=lambda: RegistrySettings())
    connect: ConnectSettings = Field(default_factory=lambda: ConnectSettings())
    redis: RedisSettings = Field(default_factory=lambda: RedisSettings())
    flink: FlinkSettings = Field(default_factory=lambda: FlinkSettings())
    http: HttpSettings = Field(default_factory=lambda: HttpSettings())
    features: FeatureSettings = Field(default_factory=lambda: FeatureSettings())
    agents: AgentSettings = Field(default_factory=lambda: AgentSettings())
    text: TextSettings = Field(default_factory=lambda: TextSettings())
    image: ImageSettings = Field(default_factory=lambda: ImageSettings())
    reindex: ReindexSettings = Field(default_factory=lambda: ReindexSettings())
    runtime: RuntimeSettings = Field(default_factory=lambda: RuntimeSettings())
    trainer: TrainerSettings = Field(default_factory=lambda: TrainerSettings())
    monitors: MonitorSettings = Field(default_factory=lambda: MonitorSettings())
    embeddings: EmbeddingSettings = Field(default_factory=lambda: EmbeddingSettings())
    canary: CanarySettings = Field(default_factory=lambda: CanarySettings())
    mlflow: MlflowSettings = Field(default_factory=lambda: MlflowSettings())
    scoring: ScoringSettings = Field(default_factory=lambda: ScoringSettings())
    insights: InsightSettings = Field(default_factory=lambda: InsightSettings())
    inference: InferenceSettings = Field(default_factory=lambda: InferenceSettings())
    leads: LeadSettings = Field(default_factory=lambda: LeadSettings())
    recommend: RecommendSettings = Field(default_factory=lambda: RecommendSettings())
    lake: LakeSettings = Field(default_factory=lambda: LakeSettings())
    verify: VerifySettings = Field(default_factory=lambda: VerifySettings())
    search: SearchSettings = Field(default_factory=lambda: SearchSettings())
    graph: GraphSettings = Field(default_factory=lambda: GraphSettings())
    hybrid: HybridSettings = Field(default_factory=lambda: HybridSettings())
    warehouse: WarehouseSettings = Field(default_factory=lambda: WarehouseSettings())
    demo: DemoSettings = Field(default_factory=lambda: DemoSettings())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment, then what the file said (given as arguments by `load`)."""
        return (env_settings, init_settings)

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for a child process. Secrets are in it in the clear."""
        variables: dict[str, str] = {}
        for value in _leaves(self):
            if value.raw is not None:
                variables[value.variable] = _as_text(value.raw)
        return variables

    def values(self, environment: Mapping[str, str] | None = None) -> list["Value"]:
        """Each setting with its value and where that came from."""
        environment = os.environ if environment is None else environment
        file, content = _file(environment)
        running = _running(environment, content)
        upper = {name.upper() for name in environment}
        found = []
        for value in _leaves(self):
            source = "default"
            if value.variable in upper:
                source = f"environment {value.variable}"
            elif _in_file(content, value.name):
                source = f"file {file}"
            elif _in_file(running, value.name):
                source = f"system running in {self.data_dir}"
            found.append(Value(value.name, value.variable, value.raw, source, value.description))
        return found


@dataclass(frozen=True)
class Value:
    """One setting as `dealeriq config` shows it."""

    name: str
    variable: str
    raw: Any
    source: str
    description: str

    @property
    def shown(self) -> str:
        """The value as text, a secret masked."""
        if isinstance(self.raw, SecretStr):
            return "********"
        if self.name.endswith("url") and isinstance(self.raw, str) and "@" in self.raw:
            scheme, _, rest = self.raw.rpartition("://")
            return f"{scheme}://********@{rest.rpartition('@')[2]}"
        return "" if self.raw is None else _as_text(self.raw)


def load(environment: Mapping[str, str] | None = None, *, running: bool = True) -> Settings:
    """The settings from the file, the environment, and the system that runs on the data folder.

    Args:
        environment: variables; the process's own where None.
        running: whether addresses of a running local system are taken; not by what starts one.

    Raises:
        SettingsError: the file cannot be read, or a name or a value is not allowed.
    """
    seen = os.environ if environment is None else environment
    file, content = _file(seen)
    _refuse_unknown(seen)
    if running:
        known = _running(seen, content)
        content = known | {
            name: known.get(name, {}) | given if isinstance(given, dict) else given
            for name, given in content.items()
        }
    try:
        if environment is None:
            return Settings(**content)
        before = dict(os.environ)
        try:
            os.environ.clear()
            os.environ.update(environment)
            return Settings(**content)
        finally:
            os.environ.clear()
            os.environ.update(before)
    except ValidationError as failure:
        first = failure.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        came = "" if isinstance(first.get("input"), dict) else f", came {first.get('input')!r}"
        if "password" in name or "url" in name:
            came = ""
        variable = _variable(name)
        where = variable if variable in seen else str(file) if content else variable
        raise SettingsError(f"setting {name} ({where}): {first['msg']}{came}") from failure


def _file(environment: Mapping[str, str]) -> tuple[Path, dict[str, Any]]:
    named = environment.get("DEALERIQ_CONFIG")
    file = Path(named or "dealeriq.toml")
    if not file.exists():
        if named:
            raise SettingsError(f"the settings file {file} (DEALERIQ_CONFIG) does not exist")
        return file, {}
    try:
        return file, tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as failure:
        raise SettingsError(f"the settings file {file} cannot be read: {failure}") from failure


def _running(environment: Mapping[str, str], content: Mapping[str, Any]) -> dict[str, Any]:
    given = environment.get(f"{_PREFIX}DATA_DIR") or content.get("data_dir")
    default = Settings.model_fields["data_dir"].default
    return running_system(Path(given) if isinstance(given, str) else default)


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {value.variable for value in _leaves(Settings.model_construct())}
    for name in environment:
        if name.startswith(_PREFIX) and name not in known and name.removeprefix(_PREFIX) not in _OTHER:
            raise SettingsError(f"the environment variable {name} names no setting")


def _variable(name: str) -> str:
    return _PREFIX + name.replace(".", _DELIMITER).upper()


def _leaves(settings: BaseModel, prefix: str = "") -> Iterator[Value]:
    for field, about in type(settings).model_fields.items():
        value = getattr(settings, field)
        name = f"{prefix}{field}"
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{name}.")
        else:
            yield Value(name, _variable(name), value, "", about.description or "")


def _in_file(content: Any, name: str) -> bool:
    for part in name.split("."):
        if not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return True


def _as_text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, str | Path | AnyUrl | datetime) else json.dumps(value)
