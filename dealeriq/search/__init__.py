"""The process that owns the index: it folds the topics into it, and answers searches of the HTTP service."""
