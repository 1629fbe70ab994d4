"""Detectors on a stream of errors, label by label: they see a change of the error rate and know no reference.

They keep no budget of false alarms: errors that hang together make them fire, so they are notes, and the harm tests decide.
"""

from importlib import import_module
from typing import Protocol, cast

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.errors import ConfigError

Errors = npt.NDArray[np.uint8]  # 0 or 1 for each label, in the order of the predictions
NAMES = ("page_hinkley", "adwin")


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """All that a stream detector remembers; saved and restored with the monitor's state."""

    version: str  # of the model: another one begins anew
    num_seen: int = 0
    body: bytes = b""  # the detector's own; empty: nothing yet


class ErrorDrift(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream detector says of the labels of one window."""

    detector: str
    is_drift: bool
    rate_before: float | None  # error rate since the last alarm; None: not known
    rate: float  # of the window
    num_labels: int
    words: str = ""


class StreamDetector(Protocol):
    """Pure: the same bytes and errors give the same bytes and alarm, however the stream is cut into windows."""

    name: str

    def run(self, body: bytes, errors_N: Errors) -> tuple[bytes, int | None, float | None]:
        """Go on from `body` with N errors; after an alarm the detector begins anew, within the same errors.

        Returns:
            What it remembers now, the place of the first rise that was called a change (None: no rise), and the error rate
            that it knew before these errors (None: not known).
        """
        ...


class _Sums(msgspec.Struct, array_like=True):
    """Of a Page-Hinkley test."""

    num: int = 0
    mean: float = 0.0
    rise: float = 0.0
    lowest_rise: float = float("inf")


class PageHinkley:
    """A rise of the mean: the sum of deviations from the running mean less `delta` has climbed by `threshold` above its lowest.

    Rises alone: fewer errors are no drift. In the same numbers as river's with mode "up".

    Args:
        delta: Rise of the error rate that is let pass.
        threshold: Height of the climb that is called a change.
        alpha: What a label's weight is multiplied with at each later one.
        min_labels: Labels to see first.

    Source: Page 1954; Mouss et al. 2004, with river's defaults.
    """

    name = "page_hinkley"

    def __init__(self, delta: float = 0.005, threshold: float = 50.0, alpha: float = 0.9999, min_labels: int = 30) -> None:
        if not (delta >= 0 and threshold > 0 and 0 < alpha <= 1 and min_labels >= 1):
            raise ValueError(
                "delta must be >= 0, threshold > 0, alpha in (0, 1] and min_labels >= 1, got "
                f"{delta!r}, {threshold!r}, {alpha!r} and {min_labels!r}"
            )
        self._delta, self._threshold, self._alpha, self._min_labels = delta, threshold, alpha, min_labels

    def run(self, body: bytes, errors_N: Errors) -> tuple[bytes, int | None, float | None]:
        sums = msgspec.msgpack.decode(body, type=_Sums) if body else _Sums()
        before, first = (sums.mean if sums.num else None), None
        for place, error in enumerate(errors_N.tolist()):
            sums.num += 1
            sums.mean += (error - sums.mean) / sums.num
            sums.rise = self._alpha * sums.rise + error - sums.mean - self._delta
            sums.lowest_rise = min(sums.lowest_rise, sums.rise)
            if sums.num >= self._min_labels and sums.rise - sums.lowest_rise > self._threshold:
                first = place if first is None else first
                sums = _Sums()
        return msgspec.msgpack.encode(sums), first, before


def stream_detector(name: str) -> StreamDetector:
    """The stream detector of a name.

    Raises:
        ConfigError: There is none of this name, or what it needs is not installed.

    Example:
        >>> stream_detector("page_hinkley").name
        'page_hinkley'
    """
    if name == "page_hinkley":
        return PageHinkley()
    if name != "adwin":
        raise ConfigError(f"policy.drift.streams: there is no detector {name!r}; there are {', '.join(NAMES)}")
    try:
        module = import_module("clipdrift_monitor.detectors.adwin")
    except ImportError as error:
        raise ConfigError(f"policy.drift.streams: adwin needs river ({error}): pip install 'clipdrift[streams]'") from error
    return cast(StreamDetector, module.Adwin())


def error_drifts(
    names: tuple[str, ...], states: dict[str, StreamState], version: str, errors_N: Errors
) -> tuple[tuple[ErrorDrift, ...], dict[str, StreamState]]:
    """What each detector says of a window's errors, and what it remembers now; a detector that is new begins with this window.

    Args:
        names: Of the detectors.
        states: By name; another version's are dropped.
        version: Of the model.
        errors_N: In the order of the predictions.
    """
    found, kept = [], {}
    for name in names:
        state = states.get(name)
        state = state if state is not None and state.version == version else StreamState(version=version)
        body, first, before = stream_detector(name).run(state.body, errors_N)
        kept[name] = StreamState(version=version, num_seen=state.num_seen + len(errors_N), body=body)
        if len(errors_N):
            found.append(_said(name, first, before, errors_N))
    return tuple(found), kept


def _said(name: str, first: int | None, before: float | None, errors_N: Errors) -> ErrorDrift:
    rate, words = float(errors_N.mean()), ""
    if first is not None:
        was = f"{before:.3f} before" if before is not None else "no labels before"
        words = (
            f"{name} sees the error rate rise at label {first + 1:,} of {len(errors_N):,}: {rate:.3f} in this window, {was}. "
            "It takes errors for independent, so one bad day can be all there is."
        )
    return ErrorDrift(
        detector=name, is_drift=first is not None, rate_before=before, rate=rate, num_labels=len(errors_N), words=words
    )
