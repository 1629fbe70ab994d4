"""Windows put together: of several replicas and monitors, hours to days, and a view over any span. All by addition."""

from collections.abc import Iterable

from clipdrift_monitor.windows.window import Floats, WindowKey

Windows = dict[WindowKey, Floats]


def merged(*parts: Iterable[tuple[WindowKey, Floats]], width_ms: int = 1) -> Windows:
    """The windows of all parts, each put into the window of `width_ms` that its start lies in.

    Every row must be in one part only; parts may come from other monitors, processes or times, and in any order.

    Example:
        >>> import numpy as np
        >>> hours = [(WindowKey("v", 0, hour * 3_600_000), np.array([1.0, 2.0])) for hour in range(48)]
        >>> {key.start_ms // 86_400_000: sums.tolist() for key, sums in merged(hours, width_ms=86_400_000).items()}
        {0: [24.0, 48.0], 1: [24.0, 48.0]}
    """
    if width_ms < 1:
        raise ValueError(f"width_ms must be >= 1, got {width_ms!r}")
    found: Windows = {}
    for part in parts:
        for key, sums in part:
            wide = key._replace(start_ms=key.start_ms // width_ms * width_ms)
            known = found.get(wide)
            if known is not None and len(known) != len(sums):
                raise ValueError(f"windows of version {key.version} have {len(known)} and {len(sums)} entries: other profiles")
            found[wide] = sums if known is None else known + sums
    return found


def in_span(windows: Iterable[tuple[WindowKey, Floats]], version: str, start_ms: int, end_ms: int) -> dict[int, Floats]:
    """Sums by slice of the windows of a version that start in [start, end): a sliding view, or one of any span."""
    chosen = (
        (key._replace(start_ms=0), sums)
        for key, sums in windows
        if key.version == version and start_ms <= key.start_ms < end_ms
    )
    return {key.slice_index: sums for key, sums in merged(chosen).items()}
