"""The manual agrees with the code: what it names exists, and the site builds without a warning."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from dealeriq.cli import app
from dealeriq.http.routes import ROUTES
from dealeriq.settings import load
from schemas.catalogue import CATALOGUE
from schemas.errors import DealerIQError

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / "docs").rglob("*.md"),
]
SETTINGS = {value.name: value.variable for value in load({}).values({})}
SECTIONS = {name.partition(".")[0] for name in SETTINGS if "." in name}
# What `./run` does itself; everything else it hands to `dealeriq`.
RUN = {"test", "bench", "docs", "peers"}
# Variables that are no settings: tools and processes read them by themselves.
VARIABLES = {
    *SETTINGS.values(),
    *(
        f"DEALERIQ_{name}"
        for name in ("CONFIG", "CACHE_DIR", "JAVA_HOME", "MAVEN_URL", "METRICS_PORT", "PYTHON")
    ),
}


def spans(page: Path) -> Iterator[str]:
    """Every piece of code on a page: inline code, and each line of a block."""
    text = page.read_text("utf-8")
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`]+)`", outside):
        yield " ".join(span.split())


def invocations(page: Path) -> Iterator[list[str]]:
    """The arguments of every `dealeriq …` and `./run …` on a page, up to a pipe or a comment."""
    for span in spans(page):
        for found in re.finditer(r"(?:^|[\s;&|(])(\./run|dealeriq) ([^|;#`]*)", " " + span):
            words = found.group(2)
            if found.group(1) == "dealeriq" and not span.strip().startswith(("dealeriq", "uv run")):
                continue  # the name in a sentence or a path
            try:
                yield [found.group(1), *shlex.split(words)]
            except ValueError:
                yield [found.group(1), *words.split()]


def unknown(given: list[str]) -> str | None:
    """What of a command line the program would not understand."""
    prefix, *words = given
    if prefix == "./run" and words and words[0] in RUN:
        return None
    command: Any = typer.main.get_command(app)
    context = click.Context(command, info_name="dealeriq")
    while isinstance(command, click.Group) or hasattr(command, "list_commands"):
        if not words or words[0].startswith("-") or words[0] in ("CMD", "…", "...") or words[0].isupper():
            return None
        name = words.pop(0).rstrip(",.:")
        found = command.get_command(context, name)
        if found is None:
            return f"no command {name!r}"
        command, context = found, click.Context(found, info_name=name, parent=context)
    options = {option for each in command.params for option in [*each.opts, *each.secondary_opts]} | {
        "--help",
        "-h",
    }
    for word in words:
        option = word.partition("=")[0].rstrip(",.:")
        if option.startswith("--") and option not in options:
            return f"no option {option} of {command.name}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
class TestPage:
    def test_its_commands_exist(self, page: Path) -> None:
        assert {" ".join(given): why for given in invocations(page) if (why := unknown(given))} == {}

    def test_its_settings_exist(self, page: Path) -> None:
        text = page.read_text("utf-8")
        named = set(re.findall(r"\bDEALERIQ_[A-Z0-9_]*[A-Z0-9]\b", text))
        dotted = {
            span
            for each in spans(page)
            for span in re.findall(r"^([a-z]+\.[a-z0-9_]+)(?: ?=.*)?$", each)
            if span.partition(".")[0] in SECTIONS
            and span not in CATALOGUE
            and not (ROOT / span).exists()
            and not span.endswith((".md", ".py", ".json", ".toml", ".yml"))
        }
        assert named - VARIABLES == set()
        assert dotted - SETTINGS.keys() == set()

    def test_its_paths_exist(self, page: Path) -> None:
        roots = "|".join(
            sorted(each.name for each in ROOT.iterdir() if each.is_dir() and not each.name.startswith("."))
        )
        named = {
            span for each in spans(page) for span in re.findall(rf"^((?:{roots})/[\w./-]+?)/?(?::\d+)?$", each)
        }
        missing = {path for path in named if not (ROOT / path).exists() and not (ROOT / f"{path}.py").exists()}
        assert missing == set()

    def test_its_addresses_are_served(self, page: Path) -> None:
        served = {(route.method, re.sub(r"\{[^}]*\}", "*", route.path)) for route in ROUTES}
        for span in spans(page):
            if found := re.match(r"^(GET|POST) (/[^\s?]*)", span):
                assert (found.group(1), re.sub(r"\{[^}]*\}", "*", found.group(2))) in served, span

    def test_its_metrics_are_measured(self, page: Path) -> None:
        sources = [
            source
            for folder in ("streams", "dealeriq")
            for source in (ROOT / folder).rglob("*.*")
            if source.suffix in (".py", ".java")
        ]
        code = "".join(source.read_text("utf-8") for source in sources)
        named = {name for each in spans(page) for name in re.findall(r"\bdealeriq_[a-z_]+", each)}
        bare = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in named if name not in ("dealeriq_",)}
        assert {name for name in bare if f'"{name}' not in code} == set()

    def test_its_python_compiles_and_imports_what_exists(self, page: Path) -> None:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            tree = ast.parse(block)
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.module:
                    module = importlib.import_module(node.module)
                    for name in node.names:
                        assert hasattr(module, name.name), f"{node.module}.{name.name}"


def test_the_commands_page_is_what_help_says() -> None:
    made = subprocess.run(
        [sys.executable, "-c", "import commands; print(commands.render(), end='')"],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'docs'}{os.pathsep}{ROOT}"}, capture_output=True, text=True,
        check=True, timeout=120,
    )  # fmt: skip
    assert (ROOT / "docs/cli.md").read_text("utf-8") == made.stdout, "run .venv/bin/python docs/commands.py"


def test_the_page_of_the_architecture_names_every_process() -> None:
    from dealeriq.processes import PROCESSES

    named = set(
        re.findall(r"^\| `([a-z-]+)`", (ROOT / "docs/architecture.md").read_text("utf-8"), re.MULTILINE)
    )
    assert PROCESSES.keys() - named == {"player"}  # it plays the demo


def test_every_command_gives_an_example() -> None:
    page = (ROOT / "docs/cli.md").read_text("utf-8")
    sections = re.split(r"^##+ (?=dealeriq)", page, flags=re.MULTILINE)[1:]
    without = [each.splitlines()[0] for each in sections if "Example:" not in each and "Commands:" not in each]
    assert without == []


def test_every_error_says_what_to_do() -> None:
    for package in ("schemas", "connectors", "features", "models", "streams", "dealeriq"):
        for source in (ROOT / package).rglob("errors.py"):
            importlib.import_module(".".join(source.relative_to(ROOT).with_suffix("").parts))

    def below(kind: type[DealerIQError]) -> Iterator[type[DealerIQError]]:
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    found = set(below(DealerIQError))
    assert {kind.__name__ for kind in found if not kind.remedy} == set()
    for kind in found:
        for command in re.findall(r"`(dealeriq [^`]+)`", kind.remedy):
            assert unknown(shlex.split(command)) is None, (kind.__name__, command)
        for page in re.findall(r"\bdocs/[\w/.-]+\.md\b", kind.remedy):
            assert (ROOT / page).exists(), (kind.__name__, page)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    built = {file.relative_to(tmp_path / "site").as_posix() for file in (tmp_path / "site").rglob("*.html")}
    for page in (ROOT / "docs").rglob("*.md"):
        name = (
            page.relative_to(ROOT / "docs").with_suffix(".html").as_posix().replace("README.html", "index.html")
        )
        assert name in built
    home = (tmp_path / "site" / "index.html").read_text("utf-8")
    for page in sorted((ROOT / "docs").glob("*.md")):
        assert f'href="{page.stem}.html"' in home, f"{page.name} is not in the navigation"
    assert not re.search(r'(?:src|href)="https?://[^"]+\.(?:js|css|woff2?)"', home), (
        "something is fetched from elsewhere"
    )
