"""`dealeriq search`: products and documents by what they mean and say, through the HTTP service."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.errors import DealerIQError

__all__ = ["FilterError", "command"]

_FILTER = re.compile(r"(\w+)(<=|>=|=)(.+)")


class FilterError(DealerIQError):
    """A filter is not of the form that is read."""

    remedy = "Write --filter category=PRODUCE, or --filter 'price<=5'; fields are in docs/search.md."
    exit_code = 2


def command(
    text: Annotated[str | None, typer.Argument(help="What to search for.")] = None,
    like: Annotated[
        str | None, typer.Option(help="Find the like of this: product/ID, document/ID, dealer/ID.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A picture: find what looks like it.")
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", help="Kind of vectors to search with: text, graph, image, behaviour; repeat."),
    ] = None,
    dealer: Annotated[str | None, typer.Option(help="Search on behalf of this dealer.")] = None,
    filters: Annotated[
        list[str] | None, typer.Option("--filter", help="field=value, field>=number, field<=number; repeat.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Most hits.")] = 10,
    explain: Annotated[bool, typer.Option("--why", help="Say of each hit why it is there.")] = False,
    url: Annotated[str | None, typer.Option(help="Address of the HTTP service; default: http.url.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Search products and documents by meaning and by words.

    Example: dealeriq search "something for a birthday cake" --filter category=GROCERY --filter 'price<=5'

    Example: dealeriq search --like product/1029743 --kind graph --why
    """
    from dealeriq.cli.asking import asking
    from dealeriq.settings import load

    settings = load()
    wanted = _filters(filters or [])
    with asking(settings, url, settings.search.timeout_s + 1) as client:
        picture = image.read_bytes() if image is not None else None
        answer = client.search(
            text, like=like, image=picture, kinds=kinds, dealer_id=dealer, filters=wanted, limit=limit
        )
    if as_json:
        typer.echo(json.dumps(answer.model_dump(), ensure_ascii=False))
        return
    for word, meant in answer.corrected.items():
        print(f"dealeriq: searched for {meant} instead of {word}", file=sys.stderr)
    if explain and answer.held_out:
        print("dealeriq: held out: feedback did not move these", file=sys.stderr)
    if not answer.hits:
        print("dealeriq: nothing found", file=sys.stderr)
    for place, hit in enumerate(answer.hits, 1):
        typer.echo(f"{place:>3}  {hit.type + '/' + hit.id:<24}  {_marked(hit.text, hit.highlights)}")
        if explain:
            reasons = (f"{name} #{each.rank} ({each.score:.3f})" for name, each in hit.why.items())
            moved = "" if hit.weight == 1 else f", feedback ×{hit.weight:.3f}"
            typer.echo(f"     {'':<24}  {', '.join(reasons)}{moved}")


def _filters(given: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in given:
        parts = _FILTER.fullmatch(each)
        if parts is None:
            raise FilterError(f"--filter {each!r} cannot be read")
        name, sign, value = parts.groups()
        if sign == "=":
            found.setdefault(name, []).append(value)
        elif isinstance(bounds := found.setdefault(name, {}), dict):
            bounds["lte" if sign == "<=" else "gte"] = value
        else:
            raise FilterError(f"--filter {each!r} bounds what another filter names")
    return {
        name: each[0] if isinstance(each, list) and len(each) == 1 else each for name, each in found.items()
    }


def _marked(text: str, highlights: list[tuple[int, int]], most: int = 160) -> str:
    """The text around its first highlight, the query's words in bold on a terminal."""
    start = max(0, highlights[0][0] - 40) if highlights and highlights[0][0] > most - 20 else 0
    pieces, at = ["…" if start else ""], start
    for first, last in highlights:
        if first >= at and last <= start + most:
            pieces += [text[at:first], typer.style(text[first:last], bold=True)]
            at = last
    return "".join([*pieces, text[at : start + most], "…" if len(text) > start + most else ""])
