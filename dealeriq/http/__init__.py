"""The HTTP service: features, health, metrics."""
