"""The command line: one module a command group, imported when it is asked for."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["COMMANDS", "main"]

# Name on the command line -> (module, one line of help). A module has `app`, a Typer app, or `command`, a
# function. Its own imports are paid when it runs; this list is what `--help` shows.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("dealeriq.cli.demo", "Stream the carried orders and chats through the whole system."),
    "up": ("dealeriq.cli.up", "Start every service whose address is unset, and stay."),
    "config": ("dealeriq.cli.config", "Show each setting, its value and where that came from."),
    "import": ("dealeriq.cli.import_", "Bring a file's rows into a topic."),
    "connect": ("dealeriq.cli.connect", "Read other systems into topics: Airbyte sources, PostgreSQL tables."),
    "features": ("dealeriq.cli.features", "Plan, apply and read features."),
    "schema": ("dealeriq.cli.schema", "Check and register the schemas."),
    "topics": ("dealeriq.cli.topics", "List, describe and create the topics."),
    "dlq": ("dealeriq.cli.dlq", "Look at dead letters."),
    "serve": ("dealeriq.cli.serve", "Run the HTTP service."),
    "lake": ("dealeriq.cli.lake", "List the lake's tables, tidy them, fill one anew."),
    "search": ("dealeriq.cli.search", "Search products and documents."),
    "ranking": ("dealeriq.cli.ranking", "Show and reset what feedback does to search."),
    "index": ("dealeriq.cli.index", "Make the search index again from its topics."),
    "embeddings": ("dealeriq.cli.embeddings", "Watch the vectors: drift, and encoders beside each other."),
    "reindex": ("dealeriq.cli.reindex", "Let another encoder take over while searches go on."),
    "recommend": ("dealeriq.cli.recommend", "Recommend products to a dealer."),
    "prices": ("dealeriq.cli.prices", "Tell what prices do to demand, and which to change."),
    "graph": ("dealeriq.cli.graph", "Ask the graph: bought together, compatible, dealers alike."),
    "models": ("dealeriq.cli.models", "List, train, compare, promote and roll back models."),
    "encoders": ("dealeriq.cli.encoders", "Export encoders to ONNX, and list them."),
    "warehouse": ("dealeriq.cli.warehouse", "Build, test and list the warehouse over the lake."),
    "insights": ("dealeriq.cli.insights", "Follow insights, and explain one."),
    "verify": ("dealeriq.cli.verify", "Compare every store with the log."),
}


# Set in the context while the overview is written, which needs of a command no more than its line above.
_OVERVIEW = "dealeriq.overview"


class _LazyGroup(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name, (module, _) in COMMANDS.items() if importlib.util.find_spec(module)]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        ctx.meta[_OVERVIEW] = True
        super().format_help(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.commands.update(
            {name: TyperCommand(name) for name in COMMANDS}
        )  # what a typing error is held against
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, summary = COMMANDS[cmd_name]
        if importlib.util.find_spec(module) is None:
            return None
        if ctx.resilient_parsing or ctx.meta.get(_OVERVIEW):
            return TyperCommand(cmd_name, help=summary)
        loaded: Any = importlib.import_module(module)
        app = getattr(loaded, "app", None)
        if app is None:
            app = typer.Typer(add_completion=False)
            app.command(name=cmd_name)(_function_of(loaded, cmd_name))
        command = typer.main.get_command(app)
        command.name = cmd_name
        command.help = command.help or summary
        return command


def _function_of(module: Any, name: str) -> Callable[..., Any]:
    for candidate in ("command", name, f"{name}_"):
        if callable(found := getattr(module, candidate, None)):
            return found  # type: ignore[no-any-return]
    raise TypeError(f"{module.__name__} has neither `app` nor `command`")


app = typer.Typer(
    cls=_LazyGroup,
    name="dealeriq",
    help="Real-time intelligence of a dealer network.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Real-time intelligence of a dealer network."""


def main() -> None:
    """The `dealeriq` command: an error of ours becomes one sentence on stderr and its own exit code."""
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None
    except Exception as failure:
        from connectors.errors import translated

        error = translated(failure)
        if error is None:
            raise
        print(f"dealeriq: {error.told}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
