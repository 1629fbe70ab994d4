"""The demo."""

from pathlib import Path
from typing import Annotated

import typer

from clipdrift_deploy.cli.app import app, examples


@app.command(epilog=examples("demo", "demo --keep-open"))
def demo(
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder for results and state.")] = Path("build/demo"),
    keep_open: Annotated[bool, typer.Option("--keep-open", help="Keep the status page up when it has ended.")] = False,
) -> None:
    """The whole loop on real flights of 2013: two models decay, are found out, and are repaired. Four minutes on two cores."""
    from clipdrift_deploy.demo.run import run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo(to, keep_open=keep_open))
