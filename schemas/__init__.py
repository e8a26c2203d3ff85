"""Contracts: one Avro file a topic, the topic catalogue, event ids and the envelope."""
