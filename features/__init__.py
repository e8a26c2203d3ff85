"""Feature definitions (Feast), their compiler to Flink SQL, tiles, and the online reader and writer."""
