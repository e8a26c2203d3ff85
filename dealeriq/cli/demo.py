"""`dealeriq demo`: carried orders, chats and feedback through the whole system."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

__all__ = ["command"]

_EMBEDDED_EVERY_S = 60.0  # the graph of a demo grows while one looks


def command(
    orders: Annotated[
        int | None, typer.Option(min=1, help="Order lines to play, and what else happened until then.")
    ] = None,
    speed: Annotated[
        str | None, typer.Option(help="Events a second, or `max`; default: setting demo.speed.")
    ] = None,
    search: Annotated[
        bool,
        typer.Option(
            "--search", help="Also embed the products (a whole catalogue takes minutes), and answer /v1/search."
        ),
    ] = False,
    graph: Annotated[bool, typer.Option("--graph", help="Also keep the graph in Neo4j (700 MB more).")] = False,
    loop: Annotated[
        bool,
        typer.Option(
            "--loop", help="Another story: dealers change, and a model learns it; needs an empty data folder."
        ),
    ] = False,
    leave: Annotated[
        bool, typer.Option("--exit", help="End when all is played, at rest and verified.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON summary on stdout (with --exit).")
    ] = False,
) -> None:
    """Stream a year of real orders and chats through Kafka, Flink and Faust into features, and watch.

    Ctrl-C ends every process; starting again goes on where it was. With --exit it plays to the end, verifies
    every store against the log (online features, dead letters, the lake), prints a summary and exits 0 only if
    nothing is wrong. With --search and --graph the vectors of both are fused into one, too. With --loop some
    dealers order for weeks until a model is champion, then change how they order; what the system does about it
    is told as it happens (minutes), and nobody has a hand in it.

    Example: dealeriq demo --orders 20000 --speed max --exit --json
    """
    from dealeriq.demo.progress import Playing
    from dealeriq.runtime import Supervisor
    from dealeriq.settings import SettingsError, load
    from dealeriq.system import SERVICES, System

    settings = load(running=False)
    try:
        settings.demo.orders = orders or settings.demo.orders
        settings.demo.speed = speed or settings.demo.speed
        settings.search.enabled = search or settings.search.enabled
        settings.graph.enabled = graph or settings.graph.enabled
        if search and graph:
            settings.hybrid.enabled = True
            settings.graph.embedding_every_s = settings.graph.embedding_every_s or _EMBEDDED_EVERY_S
    except ValueError as refused:
        raise SettingsError(f"--speed is {speed!r}; it is a number of events a second, or `max`") from refused
    if loop:
        outcome = _loop(settings, leave, as_json)
        raise typer.Exit(0 if outcome["ok"] else 1)
    began = time.monotonic()
    with Supervisor(settings, services=SERVICES, keep_classes=True) as supervisor:
        system, ready_s = System(supervisor, clock="event"), 0.0
        playing = Playing(system)

        def ready() -> None:
            nonlocal ready_s
            ready_s = time.monotonic() - began
            _say(f"ready after {ready_s:.1f} s; features at {supervisor.settings.http.url}")

        def play() -> None:
            system.start_process("player", once=True, wait_s=0)
            playing.start()

        try:
            system.start(readable=ready, beside=play)
            if leave or not sys.stdout.isatty():
                outcome = _to_the_end(system, playing, ready_s)
            else:
                from dealeriq.demo.screen import watch

                watch(system)
                return
        except KeyboardInterrupt:
            _say("stopping; start again to go on from here")
            raise typer.Exit(130) from None
    if as_json:
        import json

        typer.echo(json.dumps(outcome))
    else:
        _tell(outcome)
    if not outcome["ok"]:
        raise typer.Exit(1)


def _loop(settings: Any, leave: bool, as_json: bool) -> dict[str, Any]:
    """Play the story of the loop; without `leave` the system goes on until Ctrl-C."""
    import json

    from dealeriq.demo.looking import Happened
    from dealeriq.demo.loop import LoopStory, prepare
    from dealeriq.demo.summary import loop_summary
    from dealeriq.runtime import Supervisor
    from dealeriq.system import SERVICES, System

    def tell(step: Happened) -> None:
        when = time.strftime(" %Y-%m-%d", time.gmtime(step.event_ms / 1000)) if step.event_ms else ""
        _say(f"{step.at_s:7.1f} s{when} {step.what}: {step.text}")

    prepare(settings)
    try:
        with Supervisor(settings, services=SERVICES, keep_classes=True) as supervisor:
            system = System(supervisor, clock="event")
            system.start()
            outcome = loop_summary(LoopStory(system, tell=tell).run())
            typer.echo(json.dumps(outcome) if as_json else outcome["text"])
            if not leave:
                _say(f"the system goes on, insights at {settings.http.url}; Ctrl-C ends it")
                while True:
                    time.sleep(3_600)
    except KeyboardInterrupt:
        _say("stopping")
        raise typer.Exit(130) from None
    return outcome


def _to_the_end(system: Any, playing: Any, ready_s: float) -> dict[str, Any]:
    from dealeriq.demo.progress import read, settle
    from dealeriq.demo.summary import summary
    from dealeriq.verifier import verifier

    told = time.monotonic()
    while playing.is_alive():
        if time.monotonic() - told >= 5:
            told = time.monotonic()
            reading = read(system)
            _say(f"played {sum(reading.produced.values()):,} events, {reading.lag:,} tiles to fold")
        time.sleep(0.2)
    reading = settle(system, _say)
    settled_s = time.monotonic() - playing.began
    report = verifier(system.supervisor.settings, progress=_say).run()
    return summary(system, reading, report, playing.ended - playing.began, ready_s, settled_s)


def _tell(outcome: dict[str, Any]) -> None:
    verify, seconds = outcome["verify"], outcome["seconds"]
    typer.echo(f"produced   {sum(outcome['produced'].values()):,} events in {seconds['playing']} s")
    typer.echo(f"at rest    after {seconds['to_rest']} s")
    typer.echo(
        f"verified   {verify['values']:,} values and {verify['tiles']:,} tiles of {verify['entities']:,} rows "
        f"in {verify['seconds']} s: {sum(verify['findings'].values())} differ"
    )
    lake = verify["lake"]
    typer.echo(
        f"lake       {lake['rows']:,} rows of {lake['tables']} tables compared with their records, "
        f"{sum(lake['behind'].values())} behind"
    )
    for each in verify["shown"]:
        typer.echo(f"  {each}")
    for name, count in outcome["unaccounted"].items():
        typer.echo(f"  {name}: {count} events unaccounted for")
    typer.echo("ok" if outcome["ok"] else "NOT OK")


def _say(line: str) -> None:
    print(f"dealeriq: {line}", file=sys.stderr, flush=True)
