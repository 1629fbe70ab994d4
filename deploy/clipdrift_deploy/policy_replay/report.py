"""A replay in words: rows of a table for the terminal, and one HTML file that needs no server, no network and no script."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from clipdrift_contract.clock import format_moment
from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.files import write_whole
from clipdrift_deploy.policy_replay import plots
from clipdrift_monitor.decisions.replay import Replay, ReplayedBlock, in_a_sentence

COLUMNS = ("when (UTC)", "model", "done", "this policy", "loss", "cost", "why")


def rows_of(told: Replay, *, is_all: bool = False) -> list[tuple[str, ...]]:
    """Blocks at which either side ordered something, or all that are ruled otherwise; with `is_all` every block.

    A row in the order of `COLUMNS`; the figures are empty where nothing was weighed.
    """
    shown = [one for one in told.blocks if is_all or one.is_order or not one.is_alike]
    return [
        (
            format_moment(one.at_ms), told.model, _done(one), one.would, _figure(one, "loss"),
            _figure(one, "cost"), one.reasons[-1],
        )
        for one in shown
    ]  # fmt: skip


def write_page(path: Path, replays: Sequence[Replay], source: str) -> None:
    """Write the page of all replays to `path`.

    Args:
        path: Of the HTML file.
        replays: One a model.
        source: Where the policy came from.

    Raises:
        ClipdriftError: The file cannot be written.
    """
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, folder.parent]), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("replay.html.j2").render(
        title="What this policy would have done", source=source, columns=COLUMNS, models=[_contents(one) for one in replays]
    )
    try:
        write_whole(path, page.encode())
    except OSError as error:
        raise ClipdriftError(f"{path} cannot be written ({error.strerror})") from error


def _contents(told: Replay) -> dict[str, Any]:
    return {
        "name": told.model,
        "sentence": in_a_sentence(told),
        "counts": [
            (action, told.num_did.get(action, 0), told.num_would.get(action, 0))
            for action in sorted({*told.num_did, *told.num_would})
        ],
        "picture": plots.over_time(told),
        "rows": rows_of(told),
        "cannot_know": told.cannot_know,
    }


def _done(one: ReplayedBlock) -> str:
    return f"{one.did} ({one.outcome})" if one.outcome else one.did


def _figure(one: ReplayedBlock, name: str) -> str:
    return f"{one.terms[name]:.3g}" if name in one.terms else ""
