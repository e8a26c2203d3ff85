"""Apache Kafka in KRaft mode: one process that is broker and controller."""

import subprocess
from pathlib import Path

from dealeriq.runtime.errors import ServiceFailedError
from dealeriq.runtime.jars import ensure
from dealeriq.runtime.java import java
from dealeriq.runtime.services.base import Service
from dealeriq.runtime.services.probe import listens
from dealeriq.settings import Settings

__all__ = ["BROKER_OPTIONS", "Kafka"]

# What the code relies on of any broker; docker-compose.yml carries the same, and a test compares them.
BROKER_OPTIONS = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # The ceiling for Flink's and the importer's transactions.
    "transaction.max.timeout.ms": "3600000",
}
_SMALL = {
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    # A broker that was killed is let back in when its old session has run out: 9 s unless said otherwise.
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "1000",
    "num.io.threads": "4",
    "num.network.threads": "3",
    "num.recovery.threads.per.data.dir": "2",
    "log.cleaner.dedupe.buffer.size": "16777216",
    "log.cleaner.backoff.ms": "15000",
    "group.coordinator.threads": "1",
}
_LOGGING = """\
status = WARN
appender.out.type = Console
appender.out.name = OUT
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{yyyy-MM-dd HH:mm:ss.SSS} %p %c{1}: %m%n
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = OUT
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = INFO
logger.broker.name = org.apache.kafka.common.utils.AppInfoParser
logger.broker.level = ERROR
"""


class Kafka(Service):
    """A broker on one port; its data survives kill -9."""

    name = "kafka"

    @property
    def port(self) -> int:
        """The port that clients use."""
        return self.room.ports.take("kafka", 9092)

    @property
    def address(self) -> str:
        """The bootstrap address."""
        return f"127.0.0.1:{self.port}"

    def prepare(self) -> list[str]:
        """Writes the configuration and formats the storage once."""
        folder = self.room.folder("kafka").resolve()
        controller = self.room.ports.take("kafka_controller", 9093)
        options = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(folder / "data"),
            **BROKER_OPTIONS,
            **_SMALL,
        }
        properties = folder / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in options.items()))
        logging = folder / "log4j2.properties"
        logging.write_text(_LOGGING)
        classpath = ":".join(str(jar) for jar in ensure("kafka", self.room.progress))
        if not (folder / "data" / "meta.properties").exists():
            self._format(classpath, properties, logging)
        return [
            java(), *self.room.class_sharing("kafka", classpath),
            "-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=128m",
            "-XX:+ExitOnOutOfMemoryError",
            f"-Dlog4j2.configurationFile={logging}", "-cp", classpath, "kafka.Kafka", str(properties),
        ]  # fmt: skip

    def ready(self) -> bool:
        """Whether the broker answers a client's request for metadata and is its own controller."""
        if not listens(self.port):
            return False
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        try:
            client = AdminClient(
                {
                    "bootstrap.servers": self.address,
                    "log_level": 0,
                    "socket.timeout.ms": 1000,
                    "logger": _SILENT,
                }
            )
            return bool(client.list_topics(timeout=1.0).brokers)
        except KafkaException:
            return False

    def resolve(self, settings: Settings) -> None:
        """Sets kafka.bootstrap."""
        settings.kafka.bootstrap = self.address

    def _format(self, classpath: str, properties: Path, logging: Path) -> None:
        command = [
            java(), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={logging}",
            "-cp", classpath, "kafka.tools.StorageTool", "format", "--ignore-formatted",
            "--cluster-id", "ZGVhbGVyaXEtbG9jYWwtMQ", "--config", str(properties),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            log = properties.with_name("format.log")
            log.write_text(done.stdout + done.stderr)
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise ServiceFailedError(
                f"kafka: its storage could not be formatted: {''.join(last)[:200]} (log: {log})"
            )


def _silent() -> "object":
    import logging

    logger = logging.getLogger("dealeriq.runtime.probe")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


_SILENT = _silent()
