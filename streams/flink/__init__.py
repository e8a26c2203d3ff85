"""Flink keeps state and time: the job that folds topics into feature tiles, and its submission."""
