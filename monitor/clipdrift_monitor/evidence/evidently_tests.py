"""Evidently's tests of drift by their names. Beside `pack` the only module that imports Evidently and pandas."""

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift

from clipdrift_monitor.detectors.joint import Columns
from clipdrift_monitor.evidence.comparison import RowFinding


def value_drifts(method: str, reference: Columns, current: Columns) -> list[RowFinding]:
    """One finding a feature that both sides have values of, as Evidently's `ValueDrift` gives it with its default threshold.

    A test that is not for a feature's kind, or that Evidently does not know, says so in its words and finds no drift.
    """
    found = []
    for name in [name for name in reference if name in current]:
        before, now = (_column(side[name]) for side in (reference, current))
        if before.notna().any() and now.notna().any():
            found.append(_value_drift(method, name, before, now))
    return found


def _value_drift(method: str, name: str, before: pd.Series, now: pd.Series) -> RowFinding:
    detector, is_words = f"evidently:{method}", before.dtype == object
    definition = DataDefinition(numerical_columns=[] if is_words else ["x"], categorical_columns=["x"] if is_words else [])
    sides = [Dataset.from_pandas(pd.DataFrame({"x": side.dropna()}), data_definition=definition) for side in (before, now)]
    try:
        told = Report([ValueDrift(column="x", method=method)], include_tests=True).run(sides[1], sides[0]).dict()
        value, test = float(told["metrics"][0]["value"]), told["tests"][0]
    except Exception as error:  # noqa: BLE001  whatever one of its tests raises on one feature is that feature's answer
        words = f"{name}: Evidently could not say ({type(error).__name__}: {str(error)[:200]})."
        return RowFinding(detector=detector, feature=name, value=None, threshold=None, is_drift=False, words=words)
    threshold = told["metrics"][0]["config"].get("threshold")
    is_drift = "FAIL" in str(test["status"])
    return RowFinding(
        detector=detector, feature=name, value=value if np.isfinite(value) else None, threshold=threshold, is_drift=is_drift,
        words=f"{name}: {test['description']}",
    )  # fmt: skip


def _column(values: "np.ndarray[tuple[int], np.dtype[np.generic]]") -> pd.Series:
    if values.dtype.kind in "OUS":
        return pd.Series([None if one is None else str(one) for one in values.tolist()], dtype=object)
    return pd.Series(values.astype(np.float64)).replace([np.inf, -np.inf], np.nan)
