"""What is like a thing that has a fused vector: it is compared by that, unless kinds are named."""

import numpy as np
import pytest

from connectors.vectors import Encoding, Entry
from connectors.vectors.edge import EdgeIndex
from models.search.fields import KEYWORDS, NUMBERS
from models.search.likeness import alike
from schemas.ids import event_id

KINDS = {"graph": Encoding("graph-2", 2), "hybrid": Encoding("hybrid-3", 3)}
VECTORS = {
    "product/1": {"graph": (1.0, 0.0), "hybrid": (1.0, 0.0, 0.0)},
    "product/2": {"graph": (0.9, 0.1), "hybrid": (0.0, 0.0, 1.0)},
    "product/3": {"graph": (0.0, 1.0), "hybrid": (0.9, 0.1, 0.0)},
    "product/4": {"graph": (1.0, 0.1)},
}


@pytest.fixture
def index(tmp_path):
    made = EdgeIndex(tmp_path / "index", KINDS, KEYWORDS, NUMBERS)
    entries = []
    for owner, kinds in VECTORS.items():
        for kind, vector in kinds.items():
            fields = {
                "entry": kind, "owner": owner, "type": "product", "subject_id": owner[-1], "live": "true",
                "offset": 1, "encoder": f"{KINDS[kind].encoder}@1",
            }  # fmt: skip
            entries.append(Entry(event_id(kind, owner), fields, {kind: np.array(vector, np.float32)}))
    made.put(entries)
    yield made
    made.close()


def owners(found):
    return {name: [each.fields["owner"] for each in some] for name, some in found.items()}


def test_an_owner_with_a_fused_vector_is_compared_by_that_alone(index):
    found = owners(alike(index, "product/1", list(KINDS), 2, [], whole=True))
    assert found == {"like-hybrid": ["product/3", "product/2"]}


def test_kinds_that_are_named_are_all_compared(index):
    found = owners(alike(index, "product/1", list(KINDS), 2, []))
    assert found.keys() == {"like-graph", "like-hybrid"}
    assert set(found["like-graph"][:2]) == {"product/2", "product/4"}


def test_an_owner_without_one_is_compared_by_what_it_has(index):
    assert owners(alike(index, "product/4", list(KINDS), 2, [], whole=True)).keys() == {"like-graph"}
