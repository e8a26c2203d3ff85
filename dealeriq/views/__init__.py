"""The processes that keep a store true to its topics: each builds its view and runs it."""
