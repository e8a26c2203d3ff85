"""`dealeriq serve`: the HTTP service."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

__all__ = ["command", "run"]


def command(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: setting http.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one; default: http.port.")] = None,
    clock: Annotated[
        str | None, typer.Option(help="What `now` is: wall or event; default: http.clock.")
    ] = None,
) -> None:
    """Serve features over HTTP from the online store that the settings name.

    Example: dealeriq serve
    """
    run(host=host, port=port, clock=clock)


def run(**overrides: object) -> None:
    """Serve until a signal; raises AddressNotSetError, AddressTakenError, PlanError."""
    from connectors.redis import refuse_cluster
    from dealeriq.http.forward import Forwarder
    from dealeriq.http.graph import GraphSource
    from dealeriq.http.insights import InsightSource
    from dealeriq.http.prices import PriceSource
    from dealeriq.http.recommendations import RecommendationSource
    from dealeriq.http.server import listen, serve
    from dealeriq.http.settings import HttpSettings
    from dealeriq.http.stored import StoredFeatures
    from dealeriq.settings import load
    from features.plan import load as load_plan

    settings = load()
    given = {name: value for name, value in overrides.items() if value is not None}
    http = HttpSettings.model_validate({**settings.http.model_dump(), **given})
    context = settings.redis.ssl_context()
    plan = load_plan(project=settings.features.project)
    source = StoredFeatures(settings.redis.address, plan, timeout=http.redis_timeout_s, context=context)
    refuse_cluster(settings.redis)
    listener = listen(http)
    bound = listener.getsockname()
    print(f"http://{bound[0]}:{bound[1]}", file=sys.stderr, flush=True)
    search = settings.search
    serve(
        http,
        source,
        listener,
        search=Forwarder(search.address(), search.timeout_s, http.max_body_bytes),
        insights=InsightSource(source.redis, plan.project),
        recommendations=RecommendationSource(source.redis, plan.project, settings.recommend),
        graph=GraphSource(settings.graph),
        prices=PriceSource(source.redis, plan.project, source),
    )
