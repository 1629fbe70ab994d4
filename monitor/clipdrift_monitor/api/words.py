"""How the pages put figures and states into words."""

import re

from markupsafe import Markup, escape

from clipdrift_contract.clipping import describe_clip
from clipdrift_contract.clock import format_moment
from clipdrift_contract.events import ClipSpec
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.state import ModelState


def share(value: float | None, digits: int = 1) -> str:
    """A ratio in per cent; "–" for None.

    Example:
        >>> share(0.8123), share(-0.0001), share(None)
        ('81.2 %', '0.0 %', '–')
    """
    return "–" if value is None else f"{round(100 * value, digits) + 0.0:.{digits}f} %"


def number(value: float | None, digits: int = 3) -> str:
    """A number; "–" for None.

    Example:
        >>> number(0.12345), number(1200), number(None)
        ('0.123', '1,200', '–')
    """
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def day(time_ms: int) -> str:
    """Date in UTC.

    Example:
        >>> day(0)
        '1970-01-01'
    """
    return format_moment(time_ms)[:10]


def code(words: str) -> Markup:
    """Words in which what stands between backticks is code; all of it escaped.

    Example:
        >>> print(code("call `watch(model)` if a < b"))
        call <code>watch(model)</code> if a &lt; b
    """
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(words))))  # noqa: S704


def clip_words(clip: ClipSpec) -> str:
    """A clipping rule as people say it.

    Example:
        >>> clip_words(ClipSpec(kind="global_norm", max_norm=0.05)), clip_words(ClipSpec()), clip_words(ClipSpec(kind="zclip"))
        ('clipped to global norm 0.05', 'not clipped', 'clipped by ZClip')
    """
    if clip.kind == "off":
        return "not clipped"
    how = "by" if clip.kind in ("autoclip", "zclip", "agc", "adagc", "quantile") else "to"
    return f"clipped {how} {describe_clip(clip, digits=3)}"


def clipping_word(verdict: str) -> str:
    return {"implicated": "clipping holds it back", "associated": "clipping is suspected",
            "not_implicated": "clipping is not the cause", "unknown": "clipping: not known yet"}[verdict]  # fmt: skip


def in_words(state: ModelState) -> str:
    """What is going on, in a sentence."""
    if state.in_service is None:
        return "No version is in service."
    loud = [signal for signal in state.open_signals if signal.severity != "note"]
    if state.history.running_key:
        return "A retrain is running: several clipping policies are tried on the same data, and the gate compares them."
    if loud and state.diagnosis is not None:
        return state.diagnosis.words
    if loud:
        return loud[-1].summary
    if not state.num_version_labels:
        return (
            "No window has been judged since this version came into service, so nothing can be said about it yet."
            if state.generation > 1
            else "This version has no labels that are due yet, so nothing can be said about its accuracy."
        )
    return "No test has found it worse than it was when it was validated."


def window_words(config: MonitorConfig) -> str:
    hours = config.window_ms / 3_600_000
    width = "day" if hours == 24 else f"{hours:g} hours"
    return f"last {config.view_windows} windows of one {width} whose labels are due"
