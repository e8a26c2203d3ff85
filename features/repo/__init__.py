"""The Feast repository: entities, sources, views, services. The one place where a feature is defined."""
