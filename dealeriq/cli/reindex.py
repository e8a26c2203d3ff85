"""`dealeriq reindex`: another encoder takes the place of the one in use, while searches go on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dealeriq.settings import Settings
    from models.text import Encoder

__all__ = ["app"]

app = typer.Typer(
    help="Let another encoder, that of [reindex.text], take the place of the one in use, while searches go on.",
    no_args_is_help=True,
    add_completion=False,
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Execute = Annotated[bool, typer.Option("--execute", help="Do it; without, only say what would be.")]


@app.command()
def plan(as_json: Json = False) -> None:
    """Say what the other encoder still has to encode, how long that takes and what it costs.

    Some texts are encoded to measure the encoder's rate.

    Example: dealeriq reindex plan --json
    """
    from dealeriq.reindex.work import price

    settings, encoder = _to_come()
    chosen = settings.reindex
    found = price(
        settings, encoder, per_minute=chosen.texts_per_minute, per_million=chosen.price_per_million_tokens
    )
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
        return
    money = "" if found.money is None else f", {found.money:,.2f} at the price that is set"
    typer.echo(f"{found.encoder}: {found.changed:,} of {found.records:,} records are to be encoded")
    typer.echo(f"{found.chunks:,} chunks, about {found.tokens:,} tokens{money}, {_duration(found.seconds)}")


@app.command()
def run(
    follow: Annotated[
        bool, typer.Option("--follow", help="Stay and encode what changes until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Encode everything with the other encoder, within reindex.texts_per_minute; go on where it was left.

    It runs the process `reindex-agent`, which a system with reindex.enabled runs by itself. The encoder in use
    goes on beside it, and what changes meanwhile is encoded by both.

    Example: dealeriq reindex run
    """
    from dealeriq.reindex.filling import fill

    settings, encoder = _to_come()
    done = fill(settings, encoder, lambda line: print(f"dealeriq: {line}", file=sys.stderr), follow=follow)
    if as_json:
        typer.echo(json.dumps(done))
    else:
        typer.echo(f"{done['encoder']} has encoded everything: {done['records']:,} records are through")


@app.command()
def compare(
    labels: Annotated[
        Path | None,
        typer.Option(help='Labelled queries, a JSON object a line: {"query": …, "right": ["product/1"]}.'),
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold both encoders beside each other: recall@10 of an index of their vectors, and nDCG@10 of what is
    found.

    Only chunks that both have encoded count. Without --labels the queries are the names of subcategories, and
    right are the products in them. The interval is 95 % over the queries; the gain's is paired.

    Example: dealeriq reindex compare --labels queries.jsonl
    """
    from dealeriq.reindex.judging import judged

    settings, encoder = _to_come()
    found = judged(settings, encoder, labels)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name in ("in_use", "to_come"):
        each = found[name]
        typer.echo(
            f"{each['encoder']:<40}  recall@10 {each['recall']:.3f}  nDCG@10 {each['ndcg']:.3f} "
            f"({each['low']:.3f} to {each['high']:.3f})"
        )
    if found["adapted"] is not None:
        each = found["adapted"]
        typer.echo(
            f"{'the former, by adapted queries':<40}  {'':>15}  nDCG@10 {each['ndcg']:.3f} "
            f"({each['low']:.3f} to {each['high']:.3f})"
        )
    gain = found["gain"]
    typer.echo(
        f"{found['queries']:,} queries over {found['chunks']:,} chunks; nDCG@10 gains {gain['mean']:+.3f} "
        f"({gain['low']:+.3f} to {gain['high']:+.3f})"
    )


@app.command()
def adapt(
    execute: Execute = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Encode queries by the encoder in use again.")
    ] = False,
) -> None:
    """Let the other encoder encode queries already, by a map fitted on what both have encoded.

    The index in use is searched as before, and better, if `compare` says so. A search process takes the map
    over within a second; do it again when more is encoded. A swap makes it pointless.

    Example: dealeriq reindex adapt --execute
    """
    from dealeriq.reindex.judging import common
    from dealeriq.search.folder import adapter_file, folder_of
    from models.search.adapter import VectorMap

    settings, encoder = _to_come()
    folder = folder_of(settings)
    if remove:
        if execute:
            adapter_file(folder).unlink(missing_ok=True)
        print(f"dealeriq: the map {'is' if execute else 'would be'} removed", file=sys.stderr)
        return
    in_use, old, new = common(settings, encoder)
    found = VectorMap.fitted(in_use.identity, encoder.identity, old.matrix, new.matrix)
    told = f"from {found.new} to {found.old}, fitted on {len(old.chunks):,} chunks"
    if not execute:
        print(f"dealeriq: queries would be adapted {told}; --execute does it", file=sys.stderr)
        return
    folder.root.mkdir(parents=True, exist_ok=True)
    found.save(adapter_file(folder))
    typer.echo(f"queries are adapted {told}")


@app.command()
def swap(execute: Execute = False, as_json: Json = False) -> None:
    """Make an index of the other encoder's vectors and let it take the place of the one in use, in one step.

    Searches go on: a search process goes over within a second of the step. The index before is kept for
    `rollback`. It is refused while something is left to be encoded.

    Example: dealeriq reindex swap --execute
    """
    from dealeriq.cli.asking import ServiceRefusedError
    from dealeriq.reindex.work import work
    from dealeriq.search.rebuild import rebuild

    settings, encoder = _to_come()
    left = work(settings, encoder)
    if left.changed:
        raise ServiceRefusedError(
            f"{left.changed:,} of {left.records:,} records are not encoded by {encoder.identity} yet",
            remedy="Wait for `dealeriq reindex run`, then swap.",
        )
    if not execute:
        print(
            f"dealeriq: an index of {left.records:,} records by {encoder.identity} would take the place "
            "of the one in use; --execute does it",
            file=sys.stderr,
        )
        return
    done = rebuild(settings, lambda line: print(f"dealeriq: {line}", file=sys.stderr), encoder)
    done["encoder"] = encoder.identity
    if as_json:
        typer.echo(json.dumps(done))
    else:
        typer.echo(f"searches are answered by {encoder.identity} from now on; made in {done['seconds']:.0f} s")


@app.command()
def rollback(execute: Execute = False) -> None:
    """Let the index before the last swap take its place again. It reads what came since, and encodes nothing.

    Example: dealeriq reindex rollback --execute
    """
    from dealeriq.cli.asking import ServiceRefusedError
    from dealeriq.search.folder import folder_of
    from dealeriq.settings import load

    folder = folder_of(load())
    before = folder.previous()
    if before is None or not before.exists() or before == folder.current():
        raise ServiceRefusedError(
            f"no index is kept in {folder.root} to go back to",
            remedy="`dealeriq reindex swap` keeps one; `dealeriq index rebuild` makes that of [text] again.",
        )
    told = folder.about(before) or "the encoder of [text]"
    if not execute:
        print(f"dealeriq: {before.name}, by {told}, would be in use again; --execute does it", file=sys.stderr)
        return
    folder.go_back()
    typer.echo(f"{before.name} is in use again, by {told}")


@app.command()
def status(as_json: Json = False) -> None:
    """Say which encoder writes to which topic, which index is in use, and which is kept.

    Example: dealeriq reindex status --json
    """
    from connectors.redis import connect
    from dealeriq.search.folder import folder_of
    from dealeriq.settings import load
    from models.embedding.topics import Homes

    settings = load()
    folder = folder_of(settings)
    found: dict[str, Any] = {"homes": Homes(connect(settings.redis)).known()}
    for name, version in (("in_use", folder.current()), ("kept", folder.previous())):
        there = version is not None and version.exists()
        found[name] = {"version": version.name, "encoder": folder.about(version)} if version and there else None
    if as_json:
        typer.echo(json.dumps(found))
        return
    for topic, encoder in found["homes"].items():
        typer.echo(f"{topic:<20}  {encoder}")
    for name, what in (("in_use", "index in use"), ("kept", "index kept")):
        each = found[name]
        told = "none" if each is None else f"{each['version']}  {each['encoder'] or 'the encoder of [text]'}"
        typer.echo(f"{what:<20}  {told}")


def _to_come() -> tuple[Settings, Encoder]:
    """The settings, and the other encoder. Raises SettingsError where none is set."""
    from dealeriq.settings import SettingsError, load
    from models.text import text_encoder

    settings = load()
    if not settings.reindex.enabled:
        raise SettingsError(
            "reindex.enabled is false: no other encoder is to come",
            remedy="Describe it in [reindex.text], as in [text], and set reindex.enabled.",
        )
    return settings, text_encoder(settings.reindex.text)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"
