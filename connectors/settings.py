"""Where the outside systems are and how to speak to them; every client is configured from here.

An address that is None is not set: the local runtime starts the service and fills it in.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from connectors.errors import CertificateError
from schemas.catalogue import Topic, topic
from schemas.errors import DealerIQError, UnknownTopicError

__all__ = [
    "AddressNotSetError",
    "ConnectSettings",
    "KafkaSettings",
    "LakeSettings",
    "MlflowSettings",
    "RedisSettings",
    "RegistrySettings",
]


class AddressNotSetError(DealerIQError):
    """A client was asked for, and its service has no address."""

    remedy = "Set the address, or start the local services with `dealeriq up`."
    exit_code = 3


# Flink's SQL connector carries Kafka's client under a name of its own, which login modules must be called by.
_FLINK_KAFKA = "org.apache.flink.kafka.shaded.org.apache.kafka"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class KafkaSettings(_Section):
    """The Kafka cluster, for librdkafka, Flink's Java client and aiokafka alike."""

    bootstrap: str | None = Field(
        None, description="host:port of brokers, comma-separated; unset: started locally"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how brokers are spoken to"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="how the client proves who it is"
    )
    sasl_username: str | None = Field(None, description="user for SASL")
    sasl_password: SecretStr | None = Field(None, description="password for SASL")
    ssl_ca_location: str | None = Field(None, description="PEM file of the authority that signed the brokers")
    ssl_certificate_location: str | None = Field(None, description="PEM file of the client's certificate")
    ssl_key_location: str | None = Field(None, description="PEM file of the client's private key")
    ssl_key_password: SecretStr | None = Field(None, description="password of the private key")
    ssl_verify_hostname: bool = Field(True, description="the broker's certificate must name its host")
    replication: int = Field(
        1,
        ge=1,
        le=7,
        description="replicas of each topic when created; 3 in production, where a write waits for two",
    )
    partitions: dict[str, int] = Field(
        {}, description="partitions of topics when created, by name, where not as declared"
    )
    client_id: str = Field("dealeriq", description="name shown in the broker's logs and quotas")

    @property
    def address(self) -> str:
        """The bootstrap address. Raises AddressNotSetError."""
        if self.bootstrap is None:
            raise AddressNotSetError("kafka.bootstrap is not set")
        return self.bootstrap

    @field_validator("partitions")
    @classmethod
    def _known_topics(cls, given: dict[str, int]) -> dict[str, int]:
        for name, count in given.items():
            try:
                topic(name)
            except UnknownTopicError as unknown:
                raise ValueError(str(unknown)) from unknown
            if not 1 <= count <= 10_000:
                raise ValueError(f"{name} is given {count} partitions; 1 to 10,000 are allowed")
        return given

    def partitions_of(self, declared: Topic) -> int:
        """Return how many partitions a topic has here."""
        return self.partitions.get(declared.name, declared.partitions)

    def client_config(self) -> dict[str, Any]:
        """Return the settings for confluent-kafka (librdkafka)."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.address,
            "security.protocol": self.security_protocol,
            "client.id": self.client_id,
        }
        if self._sasl:
            config["sasl.mechanisms"] = self.sasl_mechanism
            config["sasl.username"] = self.sasl_username
            config["sasl.password"] = _open(self.sasl_password)
        if self._ssl:
            config["ssl.ca.pem"] = _pem("kafka.ssl_ca_location", self.ssl_ca_location)
            config["ssl.certificate.pem"] = _pem(
                "kafka.ssl_certificate_location", self.ssl_certificate_location
            )
            config["ssl.key.pem"] = _pem("kafka.ssl_key_location", self.ssl_key_location)
            config["ssl.key.password"] = _open(self.ssl_key_password)
            if not self.ssl_verify_hostname:
                config["ssl.endpoint.identification.algorithm"] = "none"
        return {name: value for name, value in config.items() if value is not None}

    def flink_properties(self) -> dict[str, str]:
        """Return the settings for Flink's Kafka connector, without the `properties.` prefix.

        Certificates are read here and given as text: TaskManagers on other machines need no files. A key is
        PKCS #8 ("BEGIN PRIVATE KEY"), as Java reads no other.
        """
        properties: dict[str, str | None] = {
            "bootstrap.servers": self.address,
            "security.protocol": self.security_protocol,
        }
        if self._sasl:
            module = (
                "scram.ScramLoginModule"
                if (self.sasl_mechanism or "").startswith("SCRAM")
                else "plain.PlainLoginModule"
            )
            user, password = _jaas(self.sasl_username or ""), _jaas(_open(self.sasl_password) or "")
            properties["sasl.mechanism"] = self.sasl_mechanism or "PLAIN"
            properties["sasl.jaas.config"] = (
                f"{_FLINK_KAFKA}.common.security.{module} required username={user} password={password};"
            )
        if self._ssl:
            if self.ssl_ca_location:
                properties["ssl.truststore.type"] = "PEM"
                properties["ssl.truststore.certificates"] = _pem("kafka.ssl_ca_location", self.ssl_ca_location)
            if self.ssl_key_location:
                properties["ssl.keystore.type"] = "PEM"
                properties["ssl.keystore.key"] = _pem("kafka.ssl_key_location", self.ssl_key_location)
                properties["ssl.keystore.certificate.chain"] = _pem(
                    "kafka.ssl_certificate_location", self.ssl_certificate_location
                )
                properties["ssl.key.password"] = _open(self.ssl_key_password)
            if not self.ssl_verify_hostname:
                properties["ssl.endpoint.identification.algorithm"] = ""
        return {name: value for name, value in properties.items() if value is not None}

    def ssl_context(self) -> ssl.SSLContext:
        """Return a TLS context with the authority, certificate and key set here. Raises CertificateError."""
        context = _context("kafka", self, _open(self.ssl_key_password))
        context.check_hostname = self.ssl_verify_hostname
        return context

    @property
    def _sasl(self) -> bool:
        return self.security_protocol.startswith("SASL")

    @property
    def _ssl(self) -> bool:
        return self.security_protocol.endswith("SSL")


class RegistrySettings(_Section):
    """The schema registry: anything that speaks Confluent's API."""

    url: str | None = Field(None, description="base URL of the Confluent API; unset: started locally")
    username: str | None = Field(None, description="user for basic authentication")
    password: SecretStr | None = Field(None, description="password for basic authentication")
    ssl_ca_location: str | None = Field(None, description="PEM file of the authority that signed the registry")
    ssl_certificate_location: str | None = Field(None, description="PEM file of the client's certificate")
    ssl_key_location: str | None = Field(None, description="PEM file of the client's private key")
    timeout_s: float = Field(10.0, gt=0, description="longest wait for one answer, s")
    retry_s: float = Field(60.0, ge=0, description="how long to retry a registry that is down, s")

    @property
    def address(self) -> str:
        """The base URL without a trailing slash. Raises AddressNotSetError."""
        if self.url is None:
            raise AddressNotSetError("registry.url is not set")
        return self.url.rstrip("/")

    def flink_properties(self) -> dict[str, str]:
        """Return what the Flink job needs to ask the registry; certificates and key as PEM text."""
        return {
            "url": self.address,
            "username": self.username or "",
            "password": _open(self.password) or "",
            "ca": _pem("registry.ssl_ca_location", self.ssl_ca_location) or "",
            "certificate": _pem("registry.ssl_certificate_location", self.ssl_certificate_location) or "",
            "key": _pem("registry.ssl_key_location", self.ssl_key_location) or "",
        }

    def ssl_context(self) -> ssl.SSLContext:
        """Return a TLS context with the authority, certificate and key set here. Raises CertificateError."""
        return _context("registry", self)


class ConnectSettings(_Section):
    """The Kafka Connect worker that runs the connectors of change data capture."""

    url: str | None = Field(None, description="base URL of its REST interface; unset: started when asked for")
    timeout_s: float = Field(30.0, gt=0, description="longest wait for one answer, s")
    database_password: SecretStr | None = Field(
        None, description="password of the captured database; a local worker gets it by its environment"
    )

    @property
    def address(self) -> str:
        """The base URL without a trailing slash. Raises AddressNotSetError."""
        if self.url is None:
            raise AddressNotSetError("connect.url is not set")
        return self.url.rstrip("/")


class RedisSettings(_Section):
    """The online store: Redis or Valkey, by URL (redis://, rediss:// or unix://)."""

    url: str | None = Field(None, description="redis://host:port/db; unset: started locally")
    username: str | None = Field(None, description="user, when not in the URL")
    password: SecretStr | None = Field(None, description="password, when not in the URL")
    ssl_ca_location: str | None = Field(None, description="PEM file of the authority that signed the server")
    ssl_certificate_location: str | None = Field(None, description="PEM file of the client's certificate")
    ssl_key_location: str | None = Field(None, description="PEM file of the client's private key")
    timeout_s: float = Field(5.0, gt=0, description="longest wait for one answer, s")

    @property
    def address(self) -> str:
        """The URL with user and password in it. Raises AddressNotSetError."""
        if self.url is None:
            raise AddressNotSetError("redis.url is not set")
        secret = _open(self.password)
        if secret is None and self.username is None:
            return self.url
        parts = urlsplit(self.url)
        who = quote(self.username or "", safe="") + (f":{quote(secret, safe='')}" if secret is not None else "")
        return urlunsplit(parts._replace(netloc=f"{who}@{parts.netloc.rpartition('@')[2]}"))

    def client_config(self) -> dict[str, Any]:
        """Return keyword arguments for `redis.Redis.from_url(settings.address, ...)`, sync or async."""
        config: dict[str, Any] = {"socket_timeout": self.timeout_s, "socket_connect_timeout": self.timeout_s}
        if self.address.startswith("rediss"):
            config["ssl_ca_certs"] = self.ssl_ca_location
            config["ssl_certfile"] = self.ssl_certificate_location
            config["ssl_keyfile"] = self.ssl_key_location
        return {name: value for name, value in config.items() if value is not None}

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return a TLS context for `rediss://`, None for an address without TLS. Raises CertificateError."""
        return _context("redis", self) if self.address.startswith("rediss") else None


def _pem(name: str, path: str | None) -> str | None:
    """Return the text of a PEM file. Raises CertificateError, naming the setting."""
    if path is None:
        return None
    try:
        text = Path(path).read_text("ascii")
    except (OSError, UnicodeDecodeError) as failure:
        reason = getattr(failure, "strerror", None) or "it is not text"
        raise CertificateError(f"{name}: {path} cannot be read ({reason})") from failure
    if "-----BEGIN" not in text:
        raise CertificateError(f"{name}: {path} is not a PEM file")
    return text


def _context(
    section: str, settings: KafkaSettings | RegistrySettings | RedisSettings, password: str | None = None
) -> ssl.SSLContext:
    authority = _pem(f"{section}.ssl_ca_location", settings.ssl_ca_location)
    certificate, key = settings.ssl_certificate_location, settings.ssl_key_location
    try:
        context = ssl.create_default_context(cadata=authority)
        if certificate:
            _pem(f"{section}.ssl_certificate_location", certificate)
            context.load_cert_chain(certificate, key, password)
    except (ssl.SSLError, OSError, ValueError) as failure:
        raise CertificateError(
            f"the certificates of {section} (ssl_ca_location, ssl_certificate_location, ssl_key_location) "
            f"cannot be used: {failure}"
        ) from failure
    return context


class LakeSettings(_Section):
    """The lake: every topic as a Delta table, in a folder or an S3 bucket."""

    url: str | None = Field(
        None, description="a folder, or s3://bucket/prefix; unset: the folder `lake` in the data folder"
    )
    topics: list[str] | None = Field(
        None, description="topics to keep; unset: all of the catalogue but tiles and imports"
    )
    flush_s: float = Field(4.0, gt=0, le=60, description="longest wait before records are committed, s")
    flush_records: int = Field(50_000, ge=1, le=1_000_000, description="most records read for one commit")
    compact_every_s: float = Field(
        300.0, gt=0, description="time between rounds that join small files and delete old ones, s"
    )
    current_every_s: float = Field(30.0, gt=0, description="time between refreshes of the current tables, s")
    retention_h: int = Field(
        72, ge=1, description="how long replaced files and versions stay readable, h; rows stay for ever"
    )
    s3_endpoint: str | None = Field(None, description="http(s)://host:port of an S3 server; unset: Amazon's")
    s3_region: str = Field("us-east-1", description="region of the bucket")
    s3_access_key: SecretStr | None = Field(None, description="access key; unset: as the environment gives it")
    s3_secret_key: SecretStr | None = Field(None, description="secret key")

    def options(self) -> dict[str, str]:
        """Return deltalake's storage options; none for a folder."""
        if self.url is None or not self.url.startswith("s3://"):
            return {}
        options: dict[str, str | None] = {
            "AWS_REGION": self.s3_region,
            "AWS_ENDPOINT_URL": self.s3_endpoint,
            "AWS_ACCESS_KEY_ID": _open(self.s3_access_key),
            "AWS_SECRET_ACCESS_KEY": _open(self.s3_secret_key),
            "AWS_ALLOW_HTTP": "true" if (self.s3_endpoint or "").startswith("http://") else None,
            # A commit is a file that must not be there yet: the store itself refuses the second writer.
            "AWS_CONDITIONAL_PUT": "etag",
            "CONNECT_TIMEOUT": "5s",
            "TIMEOUT": "60s",
            # Whoever must wait longer says so and tries again by itself.
            "max_retries": "5",
            "retry_timeout": "30s",
        }
        return {name: value for name, value in options.items() if value is not None}


class MlflowSettings(_Section):
    """MLflow: where the runs of trainings and the registry's copy are kept."""

    url: str | None = Field(
        None,
        description="tracking address: a server, or postgresql+pg8000://…; unset: SQLite in the data folder",
    )
    artifacts: str | None = Field(
        None,
        description="where runs keep files: a folder or s3://…; unset: the server's, or in the data folder",
    )
    timeout_s: int = Field(20, ge=1, le=600, description="longest wait for one answer of a server, s")

    def tracking(self, data_dir: Path) -> str:
        """Return the tracking address."""
        return self.url or f"sqlite:///{(data_dir / 'mlflow' / 'mlflow.db').absolute()}"

    def files(self, data_dir: Path, model: str) -> str | None:
        """Return where a model's runs keep files; None leaves it to the server."""
        if self.artifacts is not None:
            return f"{self.artifacts.rstrip('/')}/{model}"
        if self.url is not None and self.url.startswith("http"):
            return None
        return (data_dir / "mlflow" / "artifacts" / model).absolute().as_uri()


def _open(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _jaas(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
