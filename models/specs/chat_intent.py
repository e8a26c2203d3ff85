"""What a chat message wants: its intent, learnt from people's corrections beside the labelled examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.inputs import EventField, Input
from models.spec import DAY_MS, Fitted, Floats, Gate, Label, ModelSpec, Split, TrainingSet
from models.text.examples import OTHER, intents
from models.training import metrics

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from models.training.events import Stream

__all__ = ["ChatIntent", "inputs_of"]

_DIMENSION = 384


def inputs_of(identity: str, dimension: int) -> tuple[Input, ...]:
    """Return the inputs of a text's vector by one encoder: those of another have other columns."""
    return tuple(EventField(f"text_{at}", f"{identity}#{at}") for at in range(dimension))


class ChatIntent(ModelSpec):
    """Softmax regression on the text encoder's vector.

    A row is a correction: feedback of kind `correction` about a chat, whose comment names the right intent. It
    is seen when it comes, so nothing of it is of the future. The examples of `intents.toml` are learnt from,
    too, and judge nothing. No source of corrections counts for more than a third, where there are three.
    """

    name = "chat_intent"
    summary = "The intent of a chat message, from people's corrections and the labelled examples."
    entity = ("event_id",)
    subject_type = "chat"
    inputs = inputs_of("text", _DIMENSION)
    label = Label("feedback", 0, DAY_MS, "number", "the intent that a person gave the message")
    outputs = (*intents().all, "confidence")
    score = "confidence"
    split = Split(holdout_ms=28 * DAY_MS, tune_ms=14 * DAY_MS)
    gate = Gate("accuracy")
    in_stream = False

    def rows(self, stream: Stream) -> pa.Table:
        """Return the corrections that name an intent, with the vector of the message they are about."""
        from models.training.corrections import corrections

        place = {name: float(at) for at, name in enumerate(self.outputs[:-1])}
        return corrections(stream, lambda said: place.get(said["comment"].strip()))

    def labels(self, rows: pa.Table, stream: Stream) -> Floats:
        """Return the number of the intent that was named."""
        return np.asarray(rows["right"].to_numpy(), np.float64)

    def resolve(self, rows: pa.Table) -> tuple[Input, ...]:
        """Name the encoder."""
        from models.training.corrections import encoder

        return inputs_of(encoder().identity, encoder().dimension)

    def train(self, data: TrainingSet, fit: NDArray[np.int64], tune: NDArray[np.int64], seed: int) -> Fitted:
        """Fit on examples and corrections, as strongly held as the later corrections like best."""
        from models.training.corrections import vectors
        from models.training.softmax import bounded, softmax

        known, at = intents(), np.concatenate([fit, tune])
        shown = np.array([self.outputs.index(name) for name in known.names])
        x = np.concatenate([vectors(known.texts), data.x[at]])
        y = np.concatenate([shown, data.y[at].astype(np.int64)])
        weights = np.concatenate([np.ones(len(shown)), bounded(data.key("source")[at])])
        later = np.concatenate([np.zeros(len(shown) + len(fit), np.bool_), np.ones(len(tune), np.bool_)])
        return softmax(x, y, weights, later, len(self.outputs) - 1)

    def baseline(self, data: TrainingSet, at: NDArray[np.int64]) -> Floats:
        """Return the intent of the nearest example, and how near it is."""
        from models.training.corrections import vectors

        known = intents()
        cosines = np.nan_to_num(data.x[at]) @ vectors(known.texts).T
        nearest, near = cosines.argmax(axis=1), cosines.max(axis=1)
        name = np.where(near >= known.threshold, np.array(known.names)[nearest], OTHER)
        out = np.zeros((len(at), len(self.outputs)))
        out[np.arange(len(at)), [self.outputs.index(each) for each in name]] = 1.0
        out[:, -1] = near
        return out

    def metrics(self, truth: Floats, answers: Floats, weights: Floats | None = None) -> dict[str, float]:
        """Return accuracy, macro-averaged F1 and their like."""
        return metrics.classes(truth, answers[:, :-1], weights)

    def loss(self, truth: Floats, answers: Floats) -> Floats:
        """Return 1 for each wrong intent."""
        return np.asarray(answers[:, :-1].argmax(axis=1) != truth, np.float64)
