"""The graph: what is in it, how events change it, and what it is asked."""
