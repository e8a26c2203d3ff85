"""The processors: Flink jobs, Faust agents, views."""
