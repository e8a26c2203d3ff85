"""Recommendations: what dealers order together, what others take up, and what a dealer has already."""
