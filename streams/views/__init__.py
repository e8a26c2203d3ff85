"""Views: folds of topics into stores, each of which knows its position."""
