"""ADWIN on errors, by river. The only module that imports river; loaded where a policy names it."""

import io
import pickle
from importlib.metadata import version
from typing import Any

from river.drift import ADWIN

from clipdrift_monitor.detectors.streams import Errors

_PARTS = frozenset({("river.drift.adwin", "ADWIN"), ("river._river_rust.drift", "AdaptiveWindowing")})
_RIVER = version("river").encode()


class Adwin:
    """Two parts of the window of errors whose means differ by more than chance allows; the older is dropped.

    A rise counts, a fall only moves the window. What is remembered is river's own form, with river's version: that of another
    version is not read, and the detector begins anew.

    Args:
        delta: Chance of a false cut at each look, as ADWIN bounds it for independent errors.

    Source: Bifet, Gavaldà 2007; river 0.26.
    """

    name = "adwin"

    def __init__(self, delta: float = 0.002) -> None:
        if not 0 < delta < 1:
            raise ValueError(f"delta must be in (0, 1), got {delta!r}")
        self._delta = delta

    def run(self, body: bytes, errors_N: Errors) -> tuple[bytes, int | None, float | None]:
        adwin = self._restored(body)
        before, first = (float(adwin.estimation) if adwin.width else None), None
        for place, error in enumerate(errors_N.tolist()):
            rate = adwin.estimation
            adwin.update(error)
            if adwin.drift_detected and adwin.estimation > rate and first is None:
                first = place
        return _RIVER + b"\n" + pickle.dumps(adwin), first, before

    def _restored(self, body: bytes) -> Any:
        made_by, _, packed = body.partition(b"\n")
        if made_by != _RIVER:
            return ADWIN(delta=self._delta)
        return _OnlyAdwin(io.BytesIO(packed)).load()


class _OnlyAdwin(pickle.Unpickler):
    """Reads an ADWIN and nothing that could run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PARTS:
            raise pickle.UnpicklingError(f"a kept ADWIN holds only itself, got {module}.{name}")
        return super().find_class(module, name)
