"""LangChain's and CocoIndex's side of indexing texts that change: `python -m benchmarks.peers.indexing KIND`.

Runs in the peers' environment and answers JSON lines: each order names a file with [id, text] pairs, all that
there are; the answer says how long the library took to make its store equal to them, and how many texts it had
encoded. Both have our encoder, in batches of the size that it sorts within, and a store that costs them
least: LangChain its record manager in SQLite and vectors in memory, CocoIndex its own state and a table of
SQLite.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.text import packaged_encoder

_BATCH = 1_024
_ENCODER = packaged_encoder()
_encoded = 0

Pairs = list[tuple[str, str]]


def _encode(texts: list[str]) -> Any:
    global _encoded
    _encoded += len(texts)
    return _ENCODER.encode(texts)


def _langchain(folder: Path) -> Callable[[Pairs], None]:
    """Index documents by LangChain: those whose source changed are encoded and their old ones deleted."""
    from langchain_classic.indexes import SQLRecordManager
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.indexing import index
    from langchain_core.vectorstores import InMemoryVectorStore

    class Ours(Embeddings):  # type: ignore[misc]
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return list(_encode(texts).tolist())

        def embed_query(self, text: str) -> list[float]:
            return self.embed_documents([text])[0]

    records = SQLRecordManager("products", db_url=f"sqlite:///{folder / 'records.db'}")
    records.create_schema()
    store = InMemoryVectorStore(Ours())

    def pass_of(pairs: Pairs) -> None:
        documents = [Document(text, metadata={"source": name}) for name, text in pairs]
        index(
            documents, records, store, batch_size=_BATCH, cleanup="incremental", source_id_key="source",
            key_encoder="blake2b",
        )  # fmt: skip

    return pass_of


def _cocoindex(folder: Path) -> Callable[[Pairs], None]:
    """Declare a row for each text by CocoIndex, which remembers what it has encoded."""
    os.environ["COCOINDEX_DISABLE_USAGE_TRACKING"] = "1"
    import cocoindex as coco
    from cocoindex.connectors import sqlite

    there: Pairs = []

    @dataclass
    class Row:
        id: str
        text: str
        vector: bytes

    database: Any = coco.ContextKey[sqlite.ManagedConnection]("products")
    environment = coco.Environment(coco.Settings(db_path=folder / "state"))
    environment.context_provider.provide(database, sqlite.connect(folder / "rows.db", load_vec=False))

    @coco.fn.as_async(batching=True, max_batch_size=_BATCH)  # type: ignore[untyped-decorator]
    def encode(texts: list[str]) -> list[bytes]:
        return [each.tobytes() for each in _encode(texts)]

    @coco.fn(memo=True)  # type: ignore[untyped-decorator]
    async def one(item: tuple[str, str], table: Any) -> None:
        table.declare_row(row=Row(*item, await encode(item[1])))

    @coco.fn  # type: ignore[untyped-decorator]
    async def everything() -> None:
        schema = await sqlite.TableSchema.from_class(Row, primary_key=["id"])
        table = await sqlite.mount_table_target(database, "products", schema)
        await coco.mount_each(one, [(item[0], item) for item in there], table)

    app = coco.App(coco.AppConfig(name="products", environment=environment), everything)

    def pass_of(pairs: Pairs) -> None:
        there[:] = pairs
        app.update_blocking()

    return pass_of


def main() -> None:
    """Answer orders until they end."""
    begin = {"langchain": _langchain, "cocoindex": _cocoindex}[sys.argv[1]]
    with tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as folder:
        pass_of = begin(Path(folder))
        for line in sys.stdin:
            pairs = [
                (name, text) for name, text in json.loads(Path(json.loads(line)["file"]).read_text("utf-8"))
            ]
            before, began = _encoded, time.perf_counter()
            pass_of(pairs)
            seconds = time.perf_counter() - began
            print(json.dumps({"seconds": seconds, "encoded": _encoded - before}), flush=True)


if __name__ == "__main__":
    main()
