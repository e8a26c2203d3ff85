"""`dealeriq graph`: what the graph says of products and dealers, and its embedding."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from dealeriq.client import DealerIQ

__all__ = ["app"]

T = TypeVar("T")

app = typer.Typer(
    help="Ask the graph: what is bought together, what is compatible, which dealers are alike; embed it.",
    no_args_is_help=True,
    add_completion=False,
)
Limit = Annotated[int, typer.Option(min=1, max=100, help="Most answers.")]
Url = Annotated[str | None, typer.Option(help="Address of the HTTP service; default: http.url.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command("bought-together")
def bought_together(
    product: Annotated[str, typer.Argument(help="Id of the product.")],
    limit: Limit = 10,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List the products that orders hold with one more often than chance says, the surest first.

    Example: dealeriq graph bought-together 1082185 --limit 5
    """
    with _graph(url) as client:
        answer = client.bought_together(product, limit=limit)
    if as_json:
        typer.echo(json.dumps(answer.model_dump(), ensure_ascii=False))
        return
    _say(f"{answer.name or product}: {answer.orders:,} of {answer.all_orders:,} orders hold it")
    _none_of(answer.products, "no order holds it with another more often than chance says")
    for each in answer.products:
        typer.echo(f"{each.product_id:<12} {each.together:>7,} together  {each.lift:>8.1f}x  {each.name or ''}")


@app.command()
def compatible(
    product: Annotated[str, typer.Argument(help="Id of the product.")],
    limit: Limit = 10,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List products of the same class, those first that most of the product's dealers order, too.

    Example: dealeriq graph compatible 1082185
    """
    with _graph(url) as client:
        answer = client.compatible(product, limit=limit)
    if as_json:
        typer.echo(json.dumps(answer.model_dump(by_alias=True), ensure_ascii=False))
        return
    _say(f"{answer.name or product}: {answer.class_path or 'no class'}, ordered by {answer.dealers:,} dealers")
    _none_of(answer.products, "none of its dealers orders another product of its class")
    for each in answer.products:
        typer.echo(
            f"{each.product_id:<12} {each.dealers:>5,} dealers  {each.name or ''}  {each.package_size or ''}"
        )


@app.command()
def similar(
    dealer: Annotated[str, typer.Argument(help="Id of the dealer.")],
    limit: Limit = 10,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List the dealers that order the same products, the most similar first.

    Example: dealeriq graph similar 367
    """
    with _graph(url) as client:
        answer = client.similar_dealers(dealer, limit=limit)
    if as_json:
        typer.echo(json.dumps(answer.model_dump(), ensure_ascii=False))
        return
    _say(f"{answer.name or dealer}: compared by {answer.products:,} products")
    _none_of(answer.dealers, "no other dealer orders one of its products")
    for each in answer.dealers:
        typer.echo(
            f"{each.dealer_id:<12} {each.score:.3f}  {each.shared:>6,} shared of {each.products:>6,}  "
            f"{each.name or ''}  {each.region or ''}"
        )


@app.command()
def embed(as_json: Json = False) -> None:
    """Embed the graph now, and publish the vectors that changed to the topic `embeddings` under kind `graph`.

    Graph Data Science computes them where the graph lives: graph.embedding says how. A process that keeps the
    graph does the same on its schedule, graph.embedding_every_s.

    Example: dealeriq graph embed --json
    """
    from dataclasses import asdict

    from connectors.kafka import ensure_topics, producer
    from connectors.neo4j.driver import connect
    from connectors.registry import Registry
    from dealeriq.settings import load
    from streams.graph.embedding import GraphEmbedder

    settings = load()
    with connect(settings.graph) as driver:
        ensure_topics(settings.kafka, ["embeddings"])
        schema_id = Registry(settings.registry).register_all(["embeddings"])["embeddings-value"]
        done = GraphEmbedder(driver, settings.graph, producer(settings.kafka), schema_id).run()
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    _say(f"{done.encoder}: computed in {done.computing_s:.1f} s, done in {done.seconds:.1f} s")
    typer.echo(f"{done.published:,} of {done.vectors:,} vectors published, {done.deleted:,} taken back")


@contextmanager
def _graph(url: str | None) -> Iterator[DealerIQ]:
    """The service, which takes as long as a question to the graph may."""
    from dealeriq.cli.asking import asking
    from dealeriq.settings import load

    settings = load()
    with asking(settings, url, settings.graph.query_timeout_s + 5) as client:
        yield client


def _none_of(found: list[T], words: str) -> None:
    if not found:
        _say(words)


def _say(line: str) -> None:
    print(f"dealeriq: {line}", file=sys.stderr)
