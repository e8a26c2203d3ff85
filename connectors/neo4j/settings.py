"""Where the graph is, and how much memory a local one takes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from connectors.settings import AddressNotSetError

__all__ = ["GraphSettings"]

_SCHEMES = ("bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc")


class GraphSettings(BaseModel):
    """The graph in Neo4j, and the process that keeps it."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    enabled: bool = Field(False, description="whether the local system keeps the graph")
    url: str | None = Field(
        None, description="bolt://host:port or neo4j+s://host of Neo4j; unset: started locally, if enabled"
    )
    username: str | None = Field(None, description="user; unset: a server that asks for none")
    password: SecretStr | None = Field(None, description="password of the user")
    database: str = Field("neo4j", min_length=1, max_length=63, description="database of the server")
    timeout_s: float = Field(10.0, gt=0, description="longest wait for a connection, s")
    query_timeout_s: float = Field(5.0, gt=0, description="longest run of a query that answers a request, s")
    batch_records: int = Field(5_000, ge=1, le=50_000, description="most records folded in one transaction")
    embedding: Literal["fastrp", "node2vec", "graphsage"] = Field(
        "fastrp", description="how the graph is embedded, by Graph Data Science"
    )
    embedding_dimension: int = Field(128, ge=8, le=4096, description="length of a graph vector")
    embedding_seed: int = Field(42, ge=0, description="seed of the embedding: the same graph, the same vectors")
    embedding_tolerance: float = Field(
        0.001, ge=0, lt=1, description="1 - cosine by which a vector must have moved to be published again"
    )
    embedding_every_s: float | None = Field(
        None, ge=1, description="seconds from the end of one embedding run to the next; unset: on demand only"
    )
    heap_mb: int = Field(512, ge=256, description="heap of the local server, MiB")
    page_cache_mb: int = Field(64, ge=8, description="page cache of the local server, MiB")

    @property
    def address(self) -> str:
        """The address. Raises AddressNotSetError."""
        if self.url is None:
            raise AddressNotSetError(
                "graph.url is not set",
                remedy="Set it, or start a graph with `dealeriq demo --graph` or `dealeriq up neo4j`.",
            )
        return self.url

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, given: str | None) -> str | None:
        if given is not None and given.partition("://")[0] not in _SCHEMES:
            raise ValueError(f"the address begins with one of {', '.join(f'{each}://' for each in _SCHEMES)}")
        return given
