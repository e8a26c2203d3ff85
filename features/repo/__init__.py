"""The Feast repository: entities, sources, views and services. This is the one place where a feature is defined."""
