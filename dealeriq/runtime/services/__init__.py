"""The services that the local runtime starts; one module each, with the same roles: prepare, command, ready."""

from dealeriq.runtime.services.base import Room, Service
from dealeriq.runtime.services.connect import KafkaConnect
from dealeriq.runtime.services.flink import FlinkJobManager, FlinkTaskManager
from dealeriq.runtime.services.kafka import Kafka
from dealeriq.runtime.services.neo4j import Neo4j
from dealeriq.runtime.services.redis import Redis
from dealeriq.runtime.services.registry import Registry

__all__ = ["SERVICES", "Room", "Service"]

# A name that people ask for, and the children behind it.
SERVICES: dict[str, tuple[type[Service], ...]] = {
    "kafka": (Kafka,),
    "registry": (Registry,),
    "redis": (Redis,),
    "connect": (KafkaConnect,),
    "neo4j": (Neo4j,),
    "flink": (FlinkJobManager, FlinkTaskManager),
}
