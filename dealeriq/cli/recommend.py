"""`dealeriq recommend`: what a dealer could take up next, through the HTTP service."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    dealer: Annotated[str, typer.Argument(help="The dealer.")],
    limit: Annotated[int, typer.Option(min=1, max=100, help="Most products.")] = 20,
    category: Annotated[str | None, typer.Option(help="Only products of this category.")] = None,
    url: Annotated[str | None, typer.Option(help="Address of the HTTP service; default: http.url.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Recommend products that a dealer does not have yet, the best first, each with why.

    Example: dealeriq recommend 367 --category PRODUCE --limit 5
    """
    from dealeriq.cli.asking import asking
    from dealeriq.settings import load

    with asking(load(), url) as client:
        answer = client.recommendations(dealer, limit=limit, category=category)
    if as_json:
        typer.echo(json.dumps(answer.model_dump(by_alias=True), ensure_ascii=False))
        return
    if not answer.known:
        print(f"dealeriq: dealer {dealer} has not ordered: this is what is popular", file=sys.stderr)
    if answer.model_version is not None:
        print(f"dealeriq: ranked by next_best_products {answer.model_version}", file=sys.stderr)
    if not answer.recommendations:
        print("dealeriq: nothing to recommend yet", file=sys.stderr)
    for place, each in enumerate(answer.recommendations, 1):
        typer.echo(f"{place:>3}  {each.product_id:<12}  {each.category:<16}  {each.why.text}")
