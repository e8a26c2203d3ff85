"""`dealeriq encoders`: models of texts and pictures, exported to what the agents run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["app"]

app = typer.Typer(help="Export encoders, and list them.", no_args_is_help=True, add_completion=False)


@app.command()
def export(
    source: Annotated[
        str,
        typer.Argument(help="A folder, a name on the hub, or efficientnet-lite0.", metavar="NAME_OR_PATH"),
    ],
    to: Annotated[
        Path | None, typer.Option(help="The folder to write; default: encoders/NAME in the data folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Write a model as a folder of ONNX files that needs no torch.

    Takes any sentence-transformers model; of transformers models of texts, of images (ViT, ResNet) and of both
    (CLIP); and efficientnet-lite0, which comes with the environment. The export is compared with its source,
    each input alone and all in one batch; below a cosine of 0.9999 it is refused. Runs in an environment of its
    own, 6 GB, which the first export installs. A folder that is there already is never written over.

    Example: dealeriq encoders export sentence-transformers/all-MiniLM-L6-v2
    """
    from dealeriq.settings import load
    from dealeriq.training import child, interpreter
    from models.encoding import EncoderFolder
    from models.export.encoders import name_of

    settings = load()
    given = Path(source).expanduser()
    there = given.exists()
    name = str(given.resolve()) if there else source
    folder = (to or settings.data_dir / "encoders" / name_of(name)).absolute()
    job = {"source": name, "folder": str(folder)}
    python = interpreter(_say, "encoders")
    told = EncoderFolder.model_validate(
        child("export.encoders", job, python=python, most_s=settings.trainer.most_s)
    )
    if as_json:
        typer.echo(json.dumps({"folder": str(folder)} | told.model_dump()))
        return
    typer.echo(folder)
    identity, lowest = f"{told.name}@{told.version}", min(told.parity.values())
    print(
        f"dealeriq: {identity}, {told.dimension} numbers, cosine to its source at least {lowest:.5f}",
        file=sys.stderr,
    )
    parts = [name for name, part in (("text", told.text), ("image", told.image)) if part]
    print(f'dealeriq: to use it, set {parts[-1]}.model = "{folder}"', file=sys.stderr)


def _say(line: str) -> None:
    print(f"dealeriq: {line}", file=sys.stderr)


@app.command("ls")
def list_(
    folder: Annotated[
        Path | None, typer.Argument(help="Where they are; default: encoders in the data folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """List exported encoders; each file is held against its hash.

    Example: dealeriq encoders ls
    """
    from dealeriq.settings import load
    from models.encoding import DESCRIPTION, EncoderError, EncoderFolder

    where = folder or load().data_dir / "encoders"
    rows: list[dict[str, Any]] = []
    for each in sorted(where.glob(f"*/{DESCRIPTION}")):
        try:
            told = EncoderFolder.read(each.parent)
        except EncoderError as error:
            rows.append({"folder": str(each.parent), "error": str(error)})
            continue
        encodes = [name for name, part in (("text", told.text), ("image", told.image)) if part]
        rows.append(
            {
                "folder": str(each.parent),
                "encoder": f"{told.name}@{told.version}",
                "encodes": encodes,
                "dimension": told.dimension,
                "parity": min(told.parity.values(), default=None),
                "source": told.source,
            }
        )
    if as_json:
        typer.echo(json.dumps({"encoders": rows}))
        return
    for row in rows:
        if "error" in row:
            typer.echo(f"{row['folder']}  damaged: {row['error']}")
        else:
            parts = ", ".join(row["encodes"])
            typer.echo(f"{row['encoder']:<44} {parts:<12} {row['dimension']:>6}  {row['folder']}")
    if not rows:
        print(
            f"dealeriq: there are no encoders in {where}; `dealeriq encoders export` writes one",
            file=sys.stderr,
        )
