"""What runs in the peers' own environment, .venv-peers: Feast and Quix Streams, and nothing of them in ours."""

VIEW = "dealer_orders"
"""The view that is read and written on both sides."""

VALUES = "dealer_values"
"""Feast's plain view of the same features, already merged."""
