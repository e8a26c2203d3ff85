"""Measured claims: each benchmark runs the real system and writes what it saw, with the machine beside it."""
