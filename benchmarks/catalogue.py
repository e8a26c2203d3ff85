"""Every benchmark, in the order of `./run bench all`. Adding one is a line here and a module."""

from __future__ import annotations

from benchmarks.contract import Benchmark

__all__ = ["BENCHMARKS"]

BENCHMARKS = (
    Benchmark("reads", "Feature reads over HTTP beside `feast serve` and the Feast SDK.", "benchmarks.reads"),
    Benchmark("writes", "Feature writes beside Feast's batched and single-row ones.", "benchmarks.writes"),
    Benchmark("history", "Features of rows at past moments, beside Feast's own join.", "benchmarks.history"),
    Benchmark(
        "flink", "The tiles job from a full topic, and on to readable beside Quix Streams.", "benchmarks.flink"
    ),
    Benchmark("pipeline", "A year of orders, produced → tiles → features readable.", "benchmarks.pipeline"),
    Benchmark("search", "Products embedded, searched and found as they change.", "benchmarks.search"),
    Benchmark("fusion", "Vectors side by side, and through a trained layer.", "benchmarks.fusion"),
    Benchmark("relevance", "What search finds, by labels it cannot see.", "benchmarks.relevance"),
    Benchmark(
        "embedding-drift",
        "How often a stationary window of vectors is an alarm, and what is found.",
        "benchmarks.embedding_drift",
    ),
    Benchmark("reindex", "Another encoder: what is found while it fills, and by whom.", "benchmarks.reindex"),
    Benchmark(
        "recommend", "Recommendations, by what dealers order for the first time.", "benchmarks.recommend"
    ),
    Benchmark("leads", "Leads learnt from one by one, beside a fixed model; River alone.", "benchmarks.leads"),
    Benchmark("agents", "Chats enriched, beside the raw encoder on the same texts.", "benchmarks.agents"),
    Benchmark(
        "models",
        "Forecasts and risks beside simple and statistical ones; ONNX beside LightGBM's predict.",
        "benchmarks.models",
    ),
    Benchmark(
        "scoring",
        "Scoring beside the raw session, pyfunc, River and Quix; swaps; order to insight.",
        "benchmarks.scoring",
    ),
    Benchmark(
        "loop",
        "A change in the running system, to the version that has learnt it; a rollback.",
        "benchmarks.loop",
    ),
    Benchmark(
        "stationary",
        "Simulated streams: false alarms, promotions by chance, how soon a change is found.",
        "benchmarks.stationary",
    ),
    Benchmark(
        "freshness", "From producing an order to a reader that counts it, under load.", "benchmarks.freshness"
    ),
    Benchmark("startup", "Set-up from nothing, and a start to the first feature.", "benchmarks.startup"),
    Benchmark(
        "determinism", "The same events into two empty systems: the same bytes.", "benchmarks.determinism"
    ),
    Benchmark("lake", "A full topic to the lake, and how soon a row can be queried.", "benchmarks.lake"),
    Benchmark(
        "verify", "A full and a sampled verify of the year, and HTTP reads beside it.", "benchmarks.verify"
    ),
)
