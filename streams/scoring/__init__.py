"""Scoring in the stream: features that change become scores, by the models that the lifecycle names."""
