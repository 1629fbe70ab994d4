"""Pictures of reports, as SVG text that fits light and dark pages: lines and letters take the page's own colour."""

import io
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the page's own colour."""
_SETTINGS = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}
_counter = itertools.count()


@contextmanager
def drawn_in_style() -> Iterator[None]:
    """Everything that is drawn and written in the block has the reports' fonts and colours."""
    with mpl.rc_context(_SETTINGS):
        yield


def to_svg(figure: Figure) -> str:
    """The figure's SVG element alone; ids differ from those of every other picture on the page."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": f"clipdrift-{next(_counter)}"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def plain_ticks(axis: Axes, ticks: Sequence[float]) -> None:
    """Those of `ticks` that lie within the horizontal axis, written as plain numbers."""
    low, high = axis.get_xlim()
    kept = [tick for tick in ticks if low <= tick <= high]
    axis.set_xticks(kept, [f"{tick:g}" for tick in kept])
    axis.set_xticks([], minor=True)
