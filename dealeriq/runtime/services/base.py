"""What every local service has in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dealeriq.runtime.ports import Ports
from dealeriq.runtime.sharing import class_sharing
from dealeriq.settings import Settings

__all__ = ["Room", "Service"]


@dataclass(frozen=True)
class Room:
    """Where a service lives: the data folder, its ports, and a line of progress for people."""

    data_dir: Path
    ports: Ports
    progress: Callable[[str], None]
    keep_classes: bool = False
    """Whether Java services leave an archive of their classes, so that the next start is faster."""

    def folder(self, name: str) -> Path:
        """A folder of the data folder, made if missing."""
        path = self.data_dir / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def class_sharing(self, name: str, classpath: str) -> list[str]:
        """The options by which a Java service shares classes with its earlier runs."""
        return class_sharing(name, classpath, self.keep_classes)


class Service(ABC):
    """One service that is started as a child process when its address is unset."""

    name: ClassVar[str]
    patience_s: ClassVar[float] = 180.0

    def __init__(self, settings: Settings, room: Room) -> None:
        self.settings = settings
        self.room = room

    def environment(self) -> dict[str, str]:
        """Environment variables on top of ours."""
        return {}

    @abstractmethod
    def prepare(self) -> list[str]:
        """Fetches what is missing, writes the configuration, and returns the command; runs once."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether the service does its work now; called often: answers within two seconds, never raises."""

    @property
    @abstractmethod
    def address(self) -> str:
        """The address that clients use."""

    @abstractmethod
    def resolve(self, settings: Settings) -> None:
        """Writes the address into the settings."""
