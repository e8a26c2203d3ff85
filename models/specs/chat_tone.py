"""How a chat message is said: sentiment and urgency, learnt from people's corrections beside examples."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from models.spec import DAY_MS, Fitted, Floats, Gate, Label, ModelSpec, Split, TrainingSet
from models.specs.chat_intent import inputs_of
from models.text.examples import FOLDER, read_examples
from models.text.tone import TONES, Tone
from models.training import metrics

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from models.inputs import Input
    from models.training.events import Stream

__all__ = ["ChatSentiment", "ChatUrgency"]

_DIMENSION = 384


class _ToneSpec(ModelSpec):
    """Ridge regression on the text encoder's vector.

    A row is a correction: feedback of kind `correction` about a chat, whose comment names the tone and whose
    value is the right one. The examples of `tone.toml` are learnt from, too, and judge nothing. No source of
    corrections counts for more than a third, where there are three.
    """

    entity = ("event_id",)
    subject_type = "chat"
    inputs = inputs_of("text", _DIMENSION)
    split = Split(holdout_ms=28 * DAY_MS, tune_ms=14 * DAY_MS)
    gate = Gate("mae")
    in_stream = False

    @property
    @abstractmethod
    def tone(self) -> str:
        """Which of `TONES` it tells."""

    def rows(self, stream: Stream) -> pa.Table:
        """Return the corrections of the tone within its bounds, with the vector of their message."""
        from models.training.corrections import corrections

        least, most = TONES[self.tone]
        return corrections(
            stream,
            lambda said: (
                said["value"]
                if said["comment"].strip() == self.tone and least <= said["value"] <= most
                else None
            ),
        )

    def labels(self, rows: pa.Table, stream: Stream) -> Floats:
        """Return the value that was told."""
        return np.asarray(rows["right"].to_numpy(), np.float64)

    def resolve(self, rows: pa.Table) -> tuple[Input, ...]:
        """Name the encoder."""
        from models.training.corrections import encoder

        return inputs_of(encoder().identity, encoder().dimension)

    def train(self, data: TrainingSet, fit: NDArray[np.int64], tune: NDArray[np.int64], seed: int) -> Fitted:
        """Fit on examples and corrections, as strongly held as the later corrections like best."""
        from models.training.corrections import vectors
        from models.training.ridge import ridge
        from models.training.softmax import bounded

        known, at = self._examples(), np.concatenate([fit, tune])
        x = np.concatenate([vectors(known.texts), data.x[at]])
        y = np.concatenate([known.values, data.y[at]])
        weights = np.concatenate([np.ones(len(known.values)), bounded(data.key("source")[at])])
        later = np.concatenate([np.zeros(len(known.values) + len(fit), np.bool_), np.ones(len(tune), np.bool_)])
        return ridge(x, y, weights, later, TONES[self.tone])

    def baseline(self, data: TrainingSet, at: NDArray[np.int64]) -> Floats:
        """Return what the examples alone say."""
        from models.training.corrections import vectors

        known = self._examples()
        found = known.read(np.nan_to_num(data.x[at]), vectors(known.texts))
        return np.clip(found, *TONES[self.tone])[:, None]

    def metrics(self, truth: Floats, answers: Floats, weights: Floats | None = None) -> dict[str, float]:
        """Return the mean absolute error and its like."""
        return metrics.absolute(truth, answers[:, 0], weights)

    def _examples(self) -> Tone:
        return Tone.of(read_examples(FOLDER / "tone.toml")[self.tone])


class ChatSentiment(_ToneSpec):
    """From -1 (angry) to 1 (delighted)."""

    name = "chat_sentiment"
    tone = "sentiment"
    summary = "The sentiment of a chat message, -1 to 1, from people's corrections and the labelled examples."
    label = Label("feedback", 0, DAY_MS, "number", "the sentiment that a person gave the message")
    outputs = ("sentiment",)
    score = "sentiment"


class ChatUrgency(_ToneSpec):
    """From 0 (can wait) to 1 (now)."""

    name = "chat_urgency"
    tone = "urgency"
    summary = "The urgency of a chat message, 0 to 1, from people's corrections and the labelled examples."
    label = Label("feedback", 0, DAY_MS, "number", "the urgency that a person gave the message")
    outputs = ("urgency",)
    score = "urgency"
