"""The demonstration: carried data through the whole system, watched and summed up."""

__all__ = ["PLAYED"]

PLAYED = "player.json"
"""File in the data folder with what the player has produced, by topic."""
