"""`dealeriq up`: the local services, until Ctrl-C."""

import json
import time

import typer

from dealeriq.runtime import ServiceStatus, Supervisor
from dealeriq.settings import load

_SERVICES = ("kafka", "registry", "redis", "flink")
_ON_REQUEST = ("connect", "neo4j")


def command(
    services: list[str] = typer.Argument(
        None, help=f"Which of {', '.join((*_SERVICES, *_ON_REQUEST))}; all but the last two when none is named."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the addresses as one JSON object."),
    once: bool = typer.Option(False, "--exit", help="Stop as soon as everything is ready."),
) -> None:
    """Start every service whose address is unset, print the addresses, and stay until Ctrl-C.

    Example: dealeriq up kafka registry
    """
    names = tuple(services or _SERVICES)
    for name in names:
        if name not in (*_SERVICES, *_ON_REQUEST):
            raise typer.BadParameter(f"{name} is no service; there are {', '.join((*_SERVICES, *_ON_REQUEST))}")
    with Supervisor(load(running=False), services=names, keep_classes=True) as supervisor:
        status = supervisor.status()
        if as_json:
            typer.echo(
                json.dumps({"ready_s": round(supervisor.start_seconds, 2), "services": _as_data(status)})
            )
        else:
            typer.echo(_as_table(status))
            typer.echo(f"ready after {supervisor.start_seconds:.1f} s; Ctrl-C stops everything", err=True)
        try:
            while not once:
                time.sleep(1.0)
        except KeyboardInterrupt:
            typer.echo("stopping", err=True)


def _as_data(status: list[ServiceStatus]) -> dict[str, dict[str, object]]:
    return {
        one.name: {
            "state": one.state, "address": one.address, "pid": one.pid, "resident_bytes": one.rss,
            "log": None if one.log is None else str(one.log), "restarts": one.restarts,
        }
        for one in status
    }  # fmt: skip


def _as_table(status: list[ServiceStatus]) -> str:
    lines = [f"{one.name:<18} {one.state:<9} {one.rss >> 20:>5} MiB  {one.address}" for one in status]
    lines.append(f"{'together':<18} {'':<9} {sum(one.rss for one in status) >> 20:>5} MiB")
    return "\n".join(lines)
