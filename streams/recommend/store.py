"""The state of recommendations in Redis, and the position that stands beside it.

Keys, after the project and `:recommend:`:

- `items`: hash of product (8 bytes) → its record
- `lists`: hash of `uptake`, `orders`, `category:NAME`, `region:NAME` → the most popular there
- `dealer:<id>:known`: list of pieces that say what the dealer has; the last one counts
- `dealer:<id>:orders`: its last orders
- `regions`: hash of dealer → time and region
- `behaviours`: hash of dealer → digest of its orders, encoder and vector, as last published; not of the fold
- `ranker`: hash of `version`, `description`, `onnx`: the model that ranks (`ranker.py`); not of the fold

`models/recommend/records.py` and `dealers.py` say how they are packed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.recommend.folding import Written
from models.recommend.records import Items, fields_of
from streams.views.positioned import PositionedStore

__all__ = ["Keys", "RecommendStore"]


class Keys:
    """The keys of one project."""

    def __init__(self, project: str) -> None:
        self._prefix = f"{project}:recommend"
        self.items, self.lists, self.regions, self.behaviours, self.ranker = (
            f"{self._prefix}:{name}" for name in ("items", "lists", "regions", "behaviours", "ranker")
        )

    def known(self, dealer_id: str) -> str:
        """What a dealer has."""
        return f"{self._prefix}:dealer:{dealer_id}:known"

    def orders(self, dealer_id: str) -> str:
        """A dealer's last orders."""
        return f"{self._prefix}:dealer:{dealer_id}:orders"


class RecommendStore(PositionedStore):
    """Reads and writes through a `redis.Redis` whose answers are bytes; redis errors pass through."""

    def __init__(self, redis: Any, project: str) -> None:
        super().__init__(redis, project, "recommend-view")
        self.keys = Keys(project)

    def held(self) -> Mapping[tuple[str, int], int]:
        """Return the position as this process knows it; asked of the store at first."""
        return self.positions() if self._known is None else self._known

    def items(self, products: NDArray[np.uint64]) -> Items:
        """Return the records of products, which are ascending."""
        found = self.redis.hmget(self.keys.items, fields_of(products)) if len(products) else []
        return Items.unpack(products, found)

    def lists(self, names: Sequence[str]) -> dict[str, bytes | None]:
        """Return lists by name, None for one that is not there."""
        return dict(zip(names, self.redis.hmget(self.keys.lists, names), strict=True)) if names else {}

    def dealers(self, ids: Sequence[str]) -> list[tuple[bytes, bytes | None, bytes | None]]:
        """Return, of each dealer, what it has, its last orders, and its region."""
        if not ids:
            return []
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.mget([self.keys.orders(each) for each in ids])
        pipeline.hmget(self.keys.regions, list(ids))
        for each in ids:
            pipeline.lrange(self.keys.known(each), 0, -1)
        orders, regions, *known = pipeline.execute()
        return list(zip(map(b"".join, known), orders, regions, strict=True))

    def ordering(self) -> Iterator[str]:
        """Yield each dealer that ordered, in no order."""
        before, after = self.keys.orders("\0").split("\0")
        for key in self.redis.scan_iter(match=f"{before}*{after}", count=1_000):
            yield key.decode().removeprefix(before).removesuffix(after)

    def behaviours(self, ids: Sequence[str]) -> list[bytes | None]:
        """Return what was published of each dealer's behaviour, as it was kept."""
        return list(self.redis.hmget(self.keys.behaviours, list(ids))) if ids else []

    def keep_behaviours(self, kept: Mapping[str, bytes]) -> None:
        """Keep what is published."""
        if kept:
            self.redis.hset(self.keys.behaviours, mapping=dict(kept))

    def commit(self, written: Written, behind: Mapping[tuple[str, int], int]) -> None:
        """Write a batch and move the positions, in one step; may repeat. Raises StoreReplacedError."""
        self.commit_queued(lambda pipeline: self._queue(pipeline, written), behind)

    def remove(self) -> int:
        """Remove all of it, the position too, so that it is filled again; return how many keys went."""
        found: Iterable[bytes] = self.redis.scan_iter(match=f"{self.project}:recommend:*", count=1_000)
        keys = [self._position, *found]
        return sum(self.redis.unlink(*keys[at : at + 500]) for at in range(0, len(keys), 500))

    def _queue(self, pipeline: Any, written: Written) -> None:
        if written.items is not None and len(written.items.tails):
            fields = fields_of(written.items.products)
            pipeline.hset(self.keys.items, mapping=dict(zip(fields, written.items.pack(), strict=True)))
        if written.lists:
            pipeline.hset(self.keys.lists, mapping=dict(written.lists))
        for dealer, packed, whole in written.known:
            if whole:
                pipeline.delete(self.keys.known(dealer))
            pipeline.rpush(self.keys.known(dealer), packed)
        if written.orders:
            pipeline.mset({self.keys.orders(dealer): packed for dealer, packed in written.orders.items()})
        if written.regions:
            pipeline.hset(self.keys.regions, mapping=dict(written.regions))
