"""Neo4j: its settings, and a driver whose errors are known."""
