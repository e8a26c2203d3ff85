"""Settings of the models: the text encoder, the sessions that answer, training and its registry."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AnyHttpUrl, AwareDatetime, BaseModel, ConfigDict, Field, SecretStr

from models.providers import Provider

__all__ = [
    "CanarySettings",
    "EmbeddingSettings",
    "ImageSettings",
    "MonitorSettings",
    "ReindexSettings",
    "RuntimeSettings",
    "TextSettings",
    "TrainerSettings",
]


class TextSettings(BaseModel):
    """Which text encoder runs, and with how much of the machine."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    model: Path | None = Field(
        None,
        description="folder of `dealeriq encoders export`, or an ONNX file; unset: what a package carries",
    )
    tokenizer: Path | None = Field(
        None, description="tokenizer.json of an ONNX file; unset: the one a package carries"
    )
    provider: Provider = Field(
        "auto", description="what the encoder runs on; auto: TensorRT, CUDA or the CPU, the first that is there"
    )
    threads: int = Field(1, ge=1, le=256, description="threads of one batch's arithmetic")
    batch_size: int = Field(32, ge=1, le=1024, description="texts encoded together, of similar length")
    max_tokens: int = Field(256, ge=8, le=8192, description="tokens read of a text; the rest is cut off")
    endpoint: AnyHttpUrl | None = Field(
        None, description="base address of a service that speaks OpenAI's embeddings API; unset: an ONNX file"
    )
    endpoint_model: str | None = Field(None, description="the model that the service is to use")
    endpoint_key: SecretStr | None = Field(None, description="key for the service")
    endpoint_batch: int = Field(64, ge=1, le=2048, description="texts of one request")
    endpoint_timeout_s: float = Field(30.0, gt=0, description="longest wait for an answer, s")
    endpoint_patience_s: float = Field(
        60.0, ge=0, description="how long a request is tried again before the service counts as away, s"
    )
    endpoint_requests_per_minute: int | None = Field(
        None, ge=1, description="most requests a process sends a minute; unset: no limit"
    )
    endpoint_tokens_per_day: int | None = Field(
        None,
        ge=1,
        description="most tokens a process has encoded a day (UTC), by the service's count; unset: no limit",
    )


class ImageSettings(BaseModel):
    """Which image encoder runs, whose pictures it may read, and how large they may be."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    enabled: bool = Field(
        False, description="whether the agent that encodes products' pictures runs with the local system"
    )
    model: Path | None = Field(None, description="folder of `dealeriq encoders export` of a model of images")
    provider: Provider = Field(
        "auto", description="what the encoder runs on; auto: TensorRT, CUDA or the CPU, the first that is there"
    )
    threads: int = Field(1, ge=1, le=256, description="threads of one batch's arithmetic")
    batch_size: int = Field(8, ge=1, le=1024, description="pictures encoded together")
    folder: Path | None = Field(None, description="folder that `file:` addresses may name; unset: none is read")
    hosts: list[str] = Field(
        [], description="hosts that `https:` and `http:` addresses may name, `name` or `name:port`"
    )
    fetchers: int = Field(8, ge=1, le=256, description="addresses fetched at once")
    most_bytes: int = Field(10_000_000, ge=1, description="most bytes of a picture's file")
    most_pixels: int = Field(
        40_000_000, ge=1, le=80_000_000, description="most pixels of a picture, width times height"
    )
    timeout_s: float = Field(10.0, gt=0, description="longest time to fetch one picture, s")
    patience_s: float = Field(
        60.0, ge=0, description="how long an address that does not answer is tried, then it is a dead letter, s"
    )


class ReindexSettings(BaseModel):
    """Another encoder that takes the place of the one in use."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    enabled: bool = Field(False, description="whether the local system runs the other encoder beside the first")
    texts_per_minute: int | None = Field(
        None, ge=1, description="most texts that the other encoder is given a minute; unset: as fast as it goes"
    )
    price_per_million_tokens: float | None = Field(
        None, ge=0, description="what its service takes for a million tokens; for `dealeriq reindex plan`"
    )
    text: TextSettings = Field(
        default_factory=lambda: TextSettings(), description="the other encoder, as in `[text]`"
    )


class RuntimeSettings(BaseModel):
    """How models answer: on what, with how many threads, how many rows at once."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    provider: Provider = Field(
        "auto", description="what models run on; auto: TensorRT, CUDA or the CPU, the first that is there"
    )
    threads: int = Field(
        1, ge=1, le=256, description="threads of one batch; one is fastest for trees of one row"
    )
    batch_size: int = Field(4_096, ge=1, le=1_000_000, description="most rows answered at once")
    remote: str | None = Field(
        None,
        pattern=r"^(https?|grpcs?)://[^/]+",
        description="endpoint of the Open Inference Protocol that answers for the scorers (http://, grpc://); "
        "unset: they answer themselves",
    )
    remote_versions: Literal["names", "numbers"] = Field(
        "names", description="what the endpoint calls versions: our names, or the numbers of a Triton export"
    )
    remote_token: SecretStr | None = Field(None, description="bearer token for the endpoint; unset: none")
    remote_timeout_s: float = Field(0.5, gt=0, le=600, description="longest wait for an answer to a batch, s")
    remote_failures: int = Field(3, ge=1, description="failures in a row until the endpoint is left alone")
    remote_retry_s: float = Field(10.0, gt=0, description="time until it is asked again, s")
    remote_fallback: Literal["local", "wait"] = Field(
        "local", description="while it is away: the local session answers, or what is to be scored waits"
    )


class TrainerSettings(BaseModel):
    """Training: where versions are kept, how often a model is trained, what becomes of one that passed."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    folder: Path | None = Field(
        None,
        description="where versions are kept, and served from; unset: the folder `models` in the data folder",
    )
    min_interval_s: float = Field(
        900.0, ge=0, description="shortest time between two trainings of a model, s; a person's goes at once"
    )
    promotion: Literal["canary", "champion", "challenger"] = Field(
        "canary",
        description="what a version that passed its gates becomes; a model's first is its champion at once",
    )
    memory_mb: int = Field(768, ge=128, description="DuckDB's memory in a training, MiB; beyond it, disk")
    most_s: float = Field(3_600.0, ge=1, description="longest training before it is given up, s")

    def path(self, data_dir: Path) -> Path:
        """Return the folder of all versions."""
        return (self.folder or data_dir / "models").absolute()


class MonitorSettings(BaseModel):
    """The watch over served models: how often, by which windows, and how many false alarms are borne."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    enabled: bool = Field(True, description="whether the trainer's process watches the served models, too")
    every_s: float = Field(60.0, ge=1, description="how often it is looked whether a window has closed, s")
    window_days: float = Field(
        7.0, gt=0, description="length of a window, days of event time; each subject counts once in it"
    )
    false_alarms: float = Field(
        0.01, gt=0, lt=1, description="probability that a window of a stationary stream raises any alarm"
    )
    least_psi: float = Field(
        0.1, ge=0, description="a population stability index below this is no drift, however unlikely by chance"
    )
    least_dealers: int = Field(20, ge=2, description="a window with fewer dealers is not judged")
    settle_s: float = Field(
        10.0, ge=0,
        description="how long a version's first scores, of every entity as it is, take; they are not judged, s",
    )  # fmt: skip
    cool_down_days: float = Field(
        7.0, ge=0, description="after an alarm asked for a training, none asks again for so long, event time"
    )
    schedule: Literal["never", "weekly", "biweekly", "monthly"] = Field(
        "monthly", description="how often a served model is trained again without an alarm"
    )
    memory_mb: int = Field(256, ge=64, description="DuckDB's memory while windows are judged, MiB")
    most_s: float = Field(600.0, ge=1, description="longest judging before it is given up, s")


class EmbeddingSettings(BaseModel):
    """Refreshes of vectors, and the watch over them: its windows, and how many false alarms are borne."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    refresh: Literal["never", "weekly", "biweekly", "monthly"] = Field(
        "weekly", description="how often agents look at everything again, and encode what their encoder lacks"
    )
    monitor: bool = Field(
        True, description="whether the trainer's process watches vectors, too, where search is enabled"
    )
    every_s: float = Field(3_600.0, ge=1, description="how often it is looked whether a window has closed, s")
    window_days: float = Field(7.0, gt=0, description="length of a window, days of event time")
    reference_windows: int = Field(
        4, ge=1, description="windows that are the reference: an encoder's first ones with enough owners"
    )
    reference_from: AwareDatetime | None = Field(
        None,
        description="where the reference begins, such as 2026-03-01T00:00:00Z; unset: with the first vectors",
    )
    false_alarms: float = Field(
        0.01, ge=0.001, lt=1, description="probability that a window of a stationary kind raises an alarm"
    )
    least_owners: int = Field(30, ge=10, description="a window with fewer owners is not judged")
    most_owners: int = Field(
        1_000,
        ge=100,
        le=5_000,
        description="most owners looked at of the reference, and of a window",
    )
    memory_mb: int = Field(256, ge=64, description="DuckDB's memory while windows are judged, MiB")
    most_s: float = Field(600.0, ge=1, description="longest judging before it is given up, s")

    @property
    def since_ms(self) -> int:
        """Where the reference begins, ms since the epoch."""
        return 0 if self.reference_from is None else int(self.reference_from.timestamp() * 1000)


class CanarySettings(BaseModel):
    """A new version on live traffic beside the champion, and the old champion beside a new one."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    share: float = Field(0.1, gt=0, le=1, description="share of subjects that a canary's scores count for")
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="of promoting, withdrawing and rolling back, over all looks together"
    )
    margin: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="a new champion falls when it is worse than the old by more than this share",
    )
    least_pairs: int = Field(
        60, ge=10, description="dealers times windows scored by both before anything is decided"
    )
    most_days: float = Field(
        84.0, gt=0,
        description="days of event time until a canary that is not better goes, and an old champion rests",
    )  # fmt: skip
