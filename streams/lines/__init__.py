"""Scoring each order line as it passes."""
