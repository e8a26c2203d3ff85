"""Compare every store with the log (tiles, features, dead letters, positions), name what differs, repair it."""

from streams.verify.findings import KINDS, Finding, Report

__all__ = ["KINDS", "Finding", "Report"]
