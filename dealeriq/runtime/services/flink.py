"""The Flink session cluster: one JobManager and one TaskManager from PyFlink's own jars."""

import json
import os
import sys
import threading
from pathlib import Path

from dealeriq.runtime.jars import ensure
from dealeriq.runtime.java import java, java_home
from dealeriq.runtime.services.base import Service
from dealeriq.runtime.services.probe import answers
from dealeriq.settings import Settings

__all__ = ["CLUSTER_OPTIONS", "FlinkJobManager", "FlinkTaskManager"]

# What the jobs rely on of any cluster; docker-compose.yml carries the same, and a test compares them.
CLUSTER_OPTIONS: dict[str, str | int] = {
    "heartbeat.interval": 2000,
    "heartbeat.timeout": 10_000,
    "restart-strategy.type": "exponential-delay",
    "restart-strategy.exponential-delay.initial-backoff": "500 ms",
    "restart-strategy.exponential-delay.max-backoff": "10 s",
    "state.backend.type": "hashmap",
    "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
}

_OPENED = (
    "java.lang", "java.net", "java.io", "java.nio", "sun.nio.ch", "java.lang.reflect", "java.text", "java.time",
    "java.util", "java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks",
)  # fmt: skip
_REPORTER = "org.apache.flink.metrics.prometheus.PrometheusReporterFactory"
_LOGGING = """\
status = WARN
appender.out.type = Console
appender.out.name = OUT
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{yyyy-MM-dd HH:mm:ss.SSS} %p %c{1}: %m%n%throwable{30}
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = OUT
logger.jobs.name = org.apache.flink.runtime.executiongraph.ExecutionGraph
logger.jobs.level = INFO
# Each sink's committers take the same metric's name, which Flink then says at every start of a job.
logger.metrics.name = org.apache.flink.metrics.MetricGroup
logger.metrics.level = ERROR
"""


# JobManager and TaskManager are prepared at the same time, and share one configuration and one lib folder.
_SHARED = threading.Lock()


class _Flink(Service):
    main_class: str
    metrics_port: tuple[str, int]
    patience_s = 90.0

    @property
    def rest_port(self) -> int:
        """The port of the REST interface and the web UI."""
        return self.room.ports.take("flink", 8082)

    @property
    def address(self) -> str:
        """The REST address."""
        return f"http://127.0.0.1:{self.rest_port}"

    @property
    def folder(self) -> Path:
        """The cluster's folder inside the data folder."""
        return self.room.folder("flink").resolve()

    def java_options(self) -> list[str]:
        """Memory of the Java process."""
        return []

    def arguments(self) -> list[str]:
        """What this process is told beyond the shared configuration: where its metrics are scraped."""
        return ["-D", f"metrics.reporter.prom.port={self.room.ports.take(*self.metrics_port)}"]

    def prepare(self) -> list[str]:
        """Writes the cluster's configuration and links its lib folder."""
        with _SHARED:
            lib, conf = self._library(), self._write_configuration()
            logging = conf / f"log4j-{self.name}.properties"
            logging.write_text(_LOGGING)
            classpath = ":".join(str(jar) for jar in sorted(lib.glob("*.jar")))
        opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
        return [
            java(), *self.room.class_sharing(self.name, classpath), *self.java_options(),
            "-XX:+ExitOnOutOfMemoryError",
            "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED", *opened,
            f"-Dlog4j.configurationFile={logging}", "-cp", classpath,
            self.main_class, "--configDir", str(conf), *self.arguments(),
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """What PyFlink's Python workers and plugins need to find their way."""
        home = _pyflink_home()
        return {
            "FLINK_HOME": str(home),
            "FLINK_CONF_DIR": str(self.folder / "conf"),
            "FLINK_LIB_DIR": str(self.folder / "lib"),
            "FLINK_PLUGINS_DIR": str(self.folder / "plugins"),
            "FLINK_LOG_DIR": str(self.room.folder("logs").resolve()),
            "JAVA_HOME": str(java_home()),
        }

    def resolve(self, settings: Settings) -> None:
        """Sets the cluster's address and the folders that a submission needs."""
        settings.flink.url = self.address
        settings.flink.lib_dir = str(self.folder / "lib")
        settings.flink.checkpoint_dir = settings.flink.checkpoint_dir or self._uri("checkpoints")
        settings.flink.savepoint_dir = settings.flink.savepoint_dir or self._uri("savepoints")

    def _write_configuration(self) -> Path:
        conf = self.folder / "conf"
        conf.mkdir(exist_ok=True)
        fresh = conf / ".config.yaml"
        fresh.write_text(
            "".join(f"{name}: {json.dumps(value)}\n" for name, value in self._configuration().items())
        )
        fresh.replace(conf / "config.yaml")
        return conf

    def _uri(self, name: str) -> str:
        return (self.room.folder(f"flink/{name}")).resolve().as_uri()

    def _library(self) -> Path:
        """A private lib folder of PyFlink's own jars and ours, and plugins beside it: the metrics reporter."""
        home = _pyflink_home()
        lib = self.folder / "lib"
        lib.mkdir(exist_ok=True)
        plugins = self.folder / "plugins" / "metrics-prometheus"
        plugins.mkdir(parents=True, exist_ok=True)
        wanted = {jar.name: jar for jar in (home / "lib").glob("*.jar")}
        # Python functions in SQL need the bridge on the cluster, too.
        wanted |= {jar.name: jar for jar in (home / "opt").glob("flink-python-*.jar")}
        wanted |= {jar.name: jar for jar in ensure("flink", self.room.progress)}
        _link(wanted, lib)
        _link({jar.name: jar for jar in (home / "plugins" / "metrics-prometheus").glob("*.jar")}, plugins)
        return lib

    def _configuration(self) -> dict[str, str | int | float | bool]:
        ports, flink = self.room.ports, self.settings.flink
        tmp = self.room.folder("flink/tmp").resolve()
        return {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": ports.take("flink_rpc", 6123),
            "jobmanager.bind-host": "127.0.0.1",
            "jobmanager.memory.process.size": "640m",
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": self.rest_port,
            "rest.bind-port": str(self.rest_port),
            "blob.server.port": str(ports.take("flink_blob", 6124)),
            "taskmanager.host": "127.0.0.1",
            "taskmanager.bind-host": "127.0.0.1",
            "taskmanager.numberOfTaskSlots": flink.slots,
            # Sizes are given one by one: without Flink's shell scripts nothing derives them from a total.
            "taskmanager.cpu.cores": float(os.cpu_count() or 2),
            "taskmanager.memory.task.heap.size": f"{flink.heap_mb - 128}m",
            "taskmanager.memory.task.off-heap.size": "64m",
            "taskmanager.memory.framework.heap.size": "128m",
            "taskmanager.memory.framework.off-heap.size": "64m",
            "taskmanager.memory.network.min": "96m",
            "taskmanager.memory.network.max": "96m",
            "taskmanager.memory.managed.size": "64m",
            "taskmanager.memory.jvm-metaspace.size": "256m",
            "taskmanager.memory.jvm-overhead.min": "128m",
            "taskmanager.memory.jvm-overhead.max": "128m",
            "taskmanager.network.memory.buffers-per-channel": 2,
            **CLUSTER_OPTIONS,
            "resourcemanager.standalone.start-up-time": "30 s",
            "execution.checkpointing.dir": flink.checkpoint_dir or self._uri("checkpoints"),
            "execution.checkpointing.savepoint-dir": flink.savepoint_dir or self._uri("savepoints"),
            "io.tmp.dirs": str(tmp),
            "web.upload.dir": str(tmp),
            "web.submit.enable": False,
            "env.log.dir": str(self.room.folder("logs").resolve()),
            "python.executable": sys.executable,
            "python.client.executable": sys.executable,
            "metrics.reporter.prom.factory.class": _REPORTER,
        }


class FlinkJobManager(_Flink):
    """Takes jobs, and shows them in the web UI."""

    name = "flink-jobmanager"
    main_class = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
    metrics_port = ("flink_jobmanager_metrics", 9249)

    def java_options(self) -> list[str]:
        """A heap that holds a few jobs' graphs."""
        # Quick code is enough for it, and compiling better code took a quarter of its time.
        return [
            "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms64m", "-Xmx320m", "-XX:MaxMetaspaceSize=256m",
        ]  # fmt: skip

    def ready(self) -> bool:
        """Whether the REST interface answers."""
        return answers(f"{self.address}/overview") is not None


class FlinkTaskManager(_Flink):
    """Runs the jobs' tasks."""

    name = "flink-taskmanager"
    main_class = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
    metrics_port = ("flink_taskmanager_metrics", 9250)

    def java_options(self) -> list[str]:
        """The sizes that the configuration names."""
        return [
            "-XX:+UseParallelGC",
            "-Xms128m",
            f"-Xmx{self.settings.flink.heap_mb}m",
            "-XX:MaxDirectMemorySize=288m",
            "-XX:MaxMetaspaceSize=256m",
        ]

    def ready(self) -> bool:
        """Whether the JobManager can hand out the slots."""
        overview = answers(f"{self.address}/overview")
        return (
            overview is not None
            and int(json.loads(overview).get("slots-total", 0)) >= self.settings.flink.slots
        )


def _pyflink_home() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("pyflink")
    if spec is None or spec.origin is None:
        from dealeriq.runtime.errors import JarUnavailableError

        raise JarUnavailableError("the apache-flink package, which carries Flink, is not installed")
    return Path(spec.origin).parent


def _link(wanted: dict[str, Path], folder: Path) -> None:
    for stray in folder.glob("*.jar"):
        if stray.is_symlink() and stray.name not in wanted:
            stray.unlink()
    for name, jar in wanted.items():
        link = folder / name
        if link.is_symlink() and link.readlink() == jar:
            continue
        fresh = folder / f".{name}.{os.getpid()}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(jar)
        fresh.replace(link)
