"""Kafka Connect: one worker that keeps its configurations, offsets and states in the Kafka cluster."""

from connectors.cdc.config import PASSWORD_VARIABLE
from dealeriq.runtime.jars import ensure
from dealeriq.runtime.java import java
from dealeriq.runtime.services.base import Service
from dealeriq.runtime.services.probe import answers
from dealeriq.settings import Settings

__all__ = ["WORKER_OPTIONS", "KafkaConnect"]

# What `dealeriq connect cdc` relies on of any worker.
WORKER_OPTIONS = {
    # A connector's records and its offsets commit in one transaction.
    "exactly.once.source.support": "enabled",
    "key.converter": "org.apache.kafka.connect.json.JsonConverter",
    "key.converter.schemas.enable": "false",
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "value.converter.schemas.enable": "false",
    # A password reaches the worker by its environment; its configuration topic holds only the variable's name.
    "config.providers": "env",
    "config.providers.env.class": "org.apache.kafka.common.config.provider.EnvVarConfigProvider",
    "config.providers.env.param.allowlist.pattern": PASSWORD_VARIABLE,
}
_LOGGING = """\
status = WARN
appender.out.type = Console
appender.out.name = OUT
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{yyyy-MM-dd HH:mm:ss.SSS} %p %c{1}: %m%n%throwable{20}
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = OUT
logger.scan.name = org.reflections
logger.scan.level = ERROR
"""


class KafkaConnect(Service):
    """A worker with Debezium's connectors, started when `connect.url` is unset."""

    name = "connect"
    patience_s = 180.0

    @property
    def port(self) -> int:
        """The port of its REST interface."""
        return self.room.ports.take("connect", 8083)

    @property
    def address(self) -> str:
        """The base URL of its REST interface."""
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> list[str]:
        """Fetches the jars on first use and writes the configuration."""
        folder = self.room.folder("connect").resolve()
        kafka = self.settings.kafka
        client = kafka.flink_properties()  # plain properties of a Java client
        copies = str(kafka.replication)
        options = {
            **client,
            **{
                f"{side}.{name}": value
                for side in ("producer", "consumer", "admin")
                for name, value in client.items()
            },
            "group.id": "dealeriq-connect",
            "listeners": self.address,
            "rest.advertised.host.name": "127.0.0.1",
            "plugin.discovery": "service_load",
            "config.storage.topic": "connect.configs",
            "config.storage.replication.factor": copies,
            "offset.storage.topic": "connect.offsets",
            "offset.storage.replication.factor": copies,
            "offset.storage.partitions": "4",
            "status.storage.topic": "connect.status",
            "status.storage.replication.factor": copies,
            "status.storage.partitions": "2",
            "topic.creation.enable": "true",
            **WORKER_OPTIONS,
        }
        properties = folder / "worker.properties"
        properties.touch(mode=0o600)
        properties.write_text("".join(f"{name}={_escaped(value)}\n" for name, value in options.items()))
        logging = folder / "log4j2.properties"
        logging.write_text(_LOGGING)
        classpath = ":".join(str(jar) for jar in ensure("connect", self.room.progress))
        return [
            java(), "-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=64m",
            "-XX:+ExitOnOutOfMemoryError", f"-Dlog4j2.configurationFile={logging}", "-cp", classpath,
            "org.apache.kafka.connect.cli.ConnectDistributed", str(properties),
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """The database's password, by its own setting's name."""
        password = self.settings.connect.database_password
        return {} if password is None else {PASSWORD_VARIABLE: password.get_secret_value()}

    def ready(self) -> bool:
        """Whether it lists its connectors, which needs its topics read."""
        return answers(f"{self.address}/connectors") is not None

    def resolve(self, settings: Settings) -> None:
        """Sets connect.url."""
        settings.connect.url = self.address


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\")
