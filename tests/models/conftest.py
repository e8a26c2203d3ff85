"""One lake and one training set of each model, made once a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from features.plan import load
from models.spec import Fitted, ModelSpec, TrainingSet
from models.specs import specs
from models.training.sets import Parts, build, split
from tests.models.chats import write_jargon, write_tones
from tests.models.lead_talk import write_talk
from tests.models.prices import write_prices
from tests.models.shelves import write_shelves
from tests.models.year import write_year

LAKES = {
    "price_response": write_prices,
    "chat_intent": write_jargon,
    "lead_score": write_talk,
    "chat_sentiment": partial(write_tones, tone="sentiment"),
    "chat_urgency": partial(write_tones, tone="urgency"),
    "next_best_products": write_shelves,
}
"""Models that learn from other things than the year's lines tell."""


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lake")
    write_year(root)
    return root


class Trained:
    """A spec with its set, parts and model; the model is trained when it is first asked for."""

    def __init__(self, spec: ModelSpec, data: TrainingSet) -> None:
        self.spec, self.data = spec, data
        self.parts: Parts = split(data)
        self._fitted: Fitted | None = None

    @property
    def fitted(self) -> Fitted:
        if self._fitted is None:
            self._fitted = self.spec.train(self.data, self.parts.fit, self.parts.tune, 7)
        return self._fitted


@pytest.fixture(scope="session", params=sorted(specs()))
def trained(request: pytest.FixtureRequest, lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    spec = specs()[request.param]
    if spec.name in LAKES:
        lake = tmp_path_factory.mktemp(spec.name)
        LAKES[spec.name](lake)
    return Trained(spec, build(spec, load(), lake))
