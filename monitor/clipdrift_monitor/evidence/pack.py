"""Evidently's part of an evidence pack. The only module that imports Evidently and pandas: 4 s and a few hundred MB."""

import logging
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from evidently import BinaryClassification, DataDefinition, Dataset, MulticlassClassification, Regression, Report
from evidently.presets import ClassificationPreset, DataDriftPreset, DataSummaryPreset, RegressionPreset

from clipdrift_monitor.evidence.order import EvidenceOrder
from clipdrift_monitor.evidence.page import MIN_ROWS, Moved, with_heading
from clipdrift_monitor.evidence.plots import Shape
from clipdrift_monitor.evidence.rows import Found, Side

_log = logging.getLogger(__name__)
_PREDICTION, _LABEL, _SLICE = "prediction", "label", "slice"
_OWN = (_PREDICTION, _LABEL, _SLICE)
_MAX_CATEGORIES = 40  # of a column; the rest is drawn as one
_MAX_WORD = 60  # characters of a category
_OTHER = "(other)"
_MAX_MOVED = 10
_MAX_SHAPES = 4
_SHAPE_BINS = 20
_SHAPE_CATEGORIES = 7
# Evidently puts values into a <script> as they are, and plotly reads some tags: no word of a client may open one.
_HARMLESS = str.maketrans({"<": "‹", ">": "›"})


class _Quality(NamedTuple):
    """Metrics of quality, what Evidently must know for them, and what the reader should know of them."""

    metrics: list[Any]
    definitions: dict[str, Any]
    words: str


class _Table(NamedTuple):
    """One side as Evidently wants it."""

    rows: pd.DataFrame
    numeric: list[str]
    categorical: list[str]
    probabilities: list[str]


class _Sides(NamedTuple):
    reference: _Table
    current: _Table


class Pack(NamedTuple):
    """The whole page, self-contained, some 4 to 5 MB, and the figures in it that are not Evidently's."""

    page: str
    moved: list[Moved]
    shapes: list[Shape]


def make_pack(order: EvidenceOrder, found: Found) -> Pack:
    """The pack of two sides that have at least `MIN_ROWS` rows each."""
    sides = _Sides(_table(order, found.reference), _table(order, found.current))
    _fold_categories(sides)
    quality = _quality(order, found, sides)
    try:
        snapshot = _run(sides, quality)
    except Exception as error:  # a window may lack what one of the metrics needs: the rest is still worth having
        if not quality.metrics:
            raise
        _log.warning("quality is left out: Evidently says %s: %s", type(error).__name__, error)
        quality = _Quality([], {}, f"Quality is not shown: Evidently could not compute it ({type(error).__name__}: {error}).")
        snapshot = _run(sides, quality)
    moved = _moved(snapshot.dict()["metrics"], sides)
    shapes = [_shape(one.column, sides) for one in moved[:_MAX_SHAPES]]
    page = with_heading(snapshot.get_html_str(False), order, found, moved, quality.words, shapes)
    return Pack(page, moved, shapes)


def _run(sides: _Sides, quality: _Quality) -> Any:
    numeric, categorical = _shared(sides)
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=categorical, **quality.definitions)
    kept = [*numeric, *categorical]
    columns = [*kept, *(name for name in sides.reference.probabilities if quality.metrics)]
    reference, current = (Dataset.from_pandas(table.rows[columns], data_definition=definition) for table in sides)
    drifting = [name for name in kept if name != _LABEL]
    report = Report([DataDriftPreset(columns=drifting), *quality.metrics, DataSummaryPreset(columns=kept)])
    return report.run(current, reference)  # the current rows come first


def _shared(sides: _Sides) -> tuple[list[str], list[str]]:
    """Columns with a value on both sides; Evidently's tests fail on others."""
    is_shared = {
        name: all(name in table.rows and bool(table.rows[name].notna().any()) for table in sides)
        for name in sides.reference.rows
    }
    numeric = [name for name in sides.reference.numeric if is_shared[name] and name in sides.current.numeric]
    categorical = [name for name in sides.reference.categorical if is_shared[name] and name in sides.current.categorical]
    return numeric, categorical


def _table(order: EvidenceOrder, side: Side) -> _Table:
    columns: dict[str, Any] = {}
    numeric: list[str] = []
    categorical: list[str] = []
    for name, values in side.features.items():
        clean = f"{name} (feature)" if name in _OWN else name
        clean = clean.translate(_HARMLESS)
        columns[clean] = _words(values) if values.dtype.kind == "O" else values.astype(np.float64)
        (categorical if values.dtype.kind == "O" else numeric).append(clean)
    outputs = side.outputs
    is_value = outputs["scores"].shape[1] == 1
    columns[_PREDICTION] = outputs["predicted"] if is_value else _named(outputs["predicted"], order.classes)
    columns[_LABEL] = outputs["label"] if is_value else _named(outputs["label"], order.classes)
    numeric += [_PREDICTION, _LABEL] if is_value else []
    categorical += [] if is_value else [_PREDICTION, _LABEL]
    if len(order.slice_names) > 1 and not order.slice:
        columns[_SLICE] = _named(outputs["slice_index"], order.slice_names)
        categorical.append(_SLICE)
    probabilities = [] if is_value else [_class_name(k, order.classes) for k in range(outputs["scores"].shape[1])]
    for k, name in enumerate(probabilities):
        columns[_score_name(name)] = outputs["scores"][:, k].astype(np.float64)
    return _Table(pd.DataFrame(columns), numeric, categorical, [_score_name(name) for name in probabilities])


def _score_name(class_name: str) -> str:
    return f"probability of {class_name}"


def _named(index_N: Any, names: tuple[str, ...]) -> list[str | None]:
    return [None if not np.isfinite(i) else _class_name(int(i), names) for i in index_N.tolist()]


def _class_name(index: int, names: tuple[str, ...]) -> str:
    return names[index].translate(_HARMLESS) if 0 <= index < len(names) else str(index)


def _words(values: Any) -> list[str | None]:
    return [None if word is None else str(word)[:_MAX_WORD].translate(_HARMLESS) for word in values.tolist()]


def _fold_categories(sides: _Sides) -> None:
    """Rare categories become one, the same on both sides: a column of a thousand airports draws a thousand bars."""
    for name in set(sides.reference.categorical) & set(sides.current.categorical):
        counts = pd.concat([table.rows[name] for table in sides]).value_counts()
        if len(counts) <= _MAX_CATEGORIES:
            continue
        common = set(counts.index[: _MAX_CATEGORIES - 1])
        for table in sides:
            column = table.rows[name]
            table.rows[name] = column.where(column.isin(common) | column.isna(), _OTHER)


def _quality(order: EvidenceOrder, found: Found, sides: _Sides) -> _Quality:
    """Of the labelled rows: Evidently leaves rows without a label out of these metrics."""
    before, now = (side.num_labelled for side in found)
    if min(before, now) < MIN_ROWS:
        words = f"Quality is not shown: it needs {MIN_ROWS} labelled rows in each window, there are {before} and {now}."
        return _Quality([], {}, words)
    words = "Quality is of the labelled rows in this report only; the status page counts all of them."
    if not sides.reference.probabilities:
        return _Quality([RegressionPreset()], {"regression": [Regression(target=_LABEL, prediction=_PREDICTION)]}, words)
    if min(table.rows[_LABEL].nunique() for table in sides) < 2:
        return _Quality([], {}, "Quality is not shown: all labels of one window are of one class.")
    if len(sides.reference.probabilities) == 2:
        positive = _class_name(1, order.classes)
        task: Any = BinaryClassification(
            target=_LABEL, prediction_labels=_PREDICTION, prediction_probas=_score_name(positive), pos_label=positive
        )
    else:
        task = MulticlassClassification(target=_LABEL, prediction_labels=_PREDICTION)
    return _Quality([ClassificationPreset()], {"classification": [task]}, words)


def _moved(metrics: list[dict[str, Any]], sides: _Sides) -> list[Moved]:
    """The columns by how far beyond their threshold they are, the farthest first."""
    rated = []
    for metric in metrics:
        config = metric["config"]
        if not config["type"].endswith(":ValueDrift"):
            continue
        score, limit = float(metric["value"]), float(config["threshold"])
        is_p_value = config["method"].endswith("p_value")  # a small p-value is far, and so is a large distance
        far = limit / max(score, 1e-300) if is_p_value else score / limit
        before, now = (_in_short(table.rows[config["column"]], sides) for table in sides)
        words = (config["column"], config["method"], score, limit, far > 1, before, now)
        rated.append((far, Moved(*words)))
    rated.sort(key=lambda pair: -pair[0])
    return [one for _, one in rated[:_MAX_MOVED]]


def _shape(name: str, sides: _Sides) -> Shape:
    """Numbers in bins of equal width between the 1st and the 99th percentile, what lies outside in the outer ones; categories
    by the share of both sides together, the rest as one. Missing values have a bin of their own where there are any."""
    before, now = (table.rows[name] for table in sides)
    if before.dtype.kind == "f":
        both = pd.concat([before, now]).dropna()
        low, high = both.quantile(0.01), both.quantile(0.99)
        edges = np.linspace(low, high if high > low else low + 1.0, _SHAPE_BINS + 1)
        names = [f"{edge:.3g}" for edge in edges[:-1]]
        shares = [np.histogram(side.dropna().clip(low, high), edges)[0] / max(1, len(side)) for side in (before, now)]
    else:
        names = list(pd.concat([before, now]).value_counts().index[:_SHAPE_CATEGORIES])
        shares = [np.array([(side == word).mean() for word in names]) for side in (before, now)]
        names, shares = [*names, _OTHER], [np.append(one, max(0.0, 1 - one.sum())) for one in shares]
    if before.isna().any() or now.isna().any():
        gaps = [float(side.isna().mean()) for side in (before, now)]
        rest = [
            one if before.dtype.kind == "f" else np.append(one[:-1], one[-1] - gap)
            for one, gap in zip(shares, gaps, strict=True)
        ]
        names, shares = [*names, "missing"], [np.append(one, gap) for one, gap in zip(rest, gaps, strict=True)]
    return Shape(
        column=name, bins=tuple(map(str, names)), before=tuple(map(float, shares[0])), now=tuple(map(float, shares[1]))
    )  # fmt: skip


def _in_short(column: pd.Series, sides: _Sides) -> str:
    """Mean and missing share of numbers, or the share of the category that has changed most."""
    missing = float(column.isna().mean())
    gaps = f", {missing:.0%} missing" if missing else ""
    if column.dtype.kind == "f":
        return f"mean {column.mean():.4g}{gaps}"
    shares = [table.rows[column.name].value_counts(normalize=True) for table in sides]
    word = shares[1].sub(shares[0], fill_value=0.0).abs().idxmax()
    return f"{word}: {float((column == word).sum() / max(1, column.notna().sum())):.1%}{gaps}"
