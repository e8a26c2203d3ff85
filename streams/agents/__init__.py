"""Faust agents: stateless stages that call models on the stream."""
