"""Compare stores with the log: what is online against what the events say, recomputed without tiles."""

from streams.verify.features import Difference, FeatureReport, verify_features

__all__ = ["Difference", "FeatureReport", "verify_features"]
