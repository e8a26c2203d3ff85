"""Insights as they are read: a stream of each dealer's in Redis, and where each one lies by its id."""
