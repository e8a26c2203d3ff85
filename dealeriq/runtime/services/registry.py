"""The schema registry: Apicurio, through its Confluent-compatible API, kept in a file database."""

from dealeriq.runtime.jars import ensure
from dealeriq.runtime.java import java
from dealeriq.runtime.services.base import Service
from dealeriq.runtime.services.probe import answers
from dealeriq.settings import Settings

__all__ = ["Registry"]


class Registry(Service):
    """One registry on one port."""

    name = "registry"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.room.ports.take("registry", 8081)

    @property
    def address(self) -> str:
        """The base URL of the Confluent-compatible API."""
        return f"http://127.0.0.1:{self.port}/apis/ccompat/v7"

    def prepare(self) -> list[str]:
        """Makes its folder; the configuration is in the environment."""
        self.room.folder("registry")
        (home,) = ensure("registry", self.room.progress)
        (runner,) = home.glob("*-runner.jar")
        return [
            java(), *self.room.class_sharing("registry", str(runner)),
            "-Xms64m", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError", "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
            "-jar", str(runner),
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Where it listens and keeps its data."""
        database = (self.room.data_dir / "registry" / "registry").resolve()
        return {
            "QUARKUS_HTTP_HOST": "127.0.0.1",
            "QUARKUS_HTTP_PORT": str(self.port),
            "QUARKUS_LOG_LEVEL": "WARN",
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "h2",
            "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{database}",
            "APICURIO_DATASOURCE_USERNAME": "sa",
            "APICURIO_DATASOURCE_PASSWORD": "sa",
        }

    def ready(self) -> bool:
        """Whether it lists its subjects, which needs its database."""
        return answers(f"{self.address}/subjects") is not None

    def resolve(self, settings: Settings) -> None:
        """Sets registry.url."""
        settings.registry.url = self.address
