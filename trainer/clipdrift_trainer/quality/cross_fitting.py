"""Scores of every row by a model that did not see its day: what label errors are found from."""

import copy
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.quality.table import Floats, Ints, Table
from clipdrift_trainer.tasks.fitting import fit, predict_logits, to_scores
from clipdrift_trainer.tasks.task import Task, encode, vocabularies_of

_MAX_CATEGORIES = 32
_PENALTY = 1e-3
_NUM_ITERATIONS = 30

Predict = Callable[[Table, Ints, Ints], Floats]
"""(table, positions to train on, positions to predict) -> scores of the latter [P, K]."""


def folds(days: Ints, num_folds: int) -> Ints:
    """Fold of each row [N]: whole days in turn; where there are fewer days than folds, stretches of rows of equal length."""
    distinct, day_N = np.unique(days, return_inverse=True)
    if len(distinct) >= num_folds:
        return np.asarray(day_N % num_folds, np.int64)
    return np.arange(len(days)) * num_folds // max(1, len(days))


def cross_fit(table: Table, rows: Ints, num_folds: int, predict: Predict) -> Floats:
    """Scores of `rows` [len(rows), K], each by a model that was trained on the other folds of them.

    Raises:
        ValueError: `num_folds` is below 2.
    """
    if num_folds < 2:
        raise ValueError(f"num_folds must be >= 2, got {num_folds!r}")
    fold_R = folds(table.days[rows], num_folds)
    pieces = [(fold_R == fold, predict(table, rows[fold_R != fold], rows[fold_R == fold])) for fold in np.unique(fold_R)]
    scores = np.zeros((len(rows), pieces[0][1].shape[1] if pieces else 1))
    for is_in_fold, predicted in pieces:
        scores[is_in_fold] = predicted
    return scores


def by_own_model(clip: ClipSpec, max_steps: int, seed: int = 0) -> Predict:
    """The task's own model, trained with its own loss and optimizer for at most `max_steps`."""

    def predict(table: Table, train: Ints, asked: Ints) -> Floats:
        task: Task = copy.copy(table.task)
        task.num_steps = min(task.num_steps, max_steps)
        known, unknown = table.rows.select(train), table.rows.select(asked)
        vocabularies = vocabularies_of(task, known)
        fitted = fit(task, known, vocabularies, clip, seed)
        return to_scores(predict_logits(fitted.module, encode(task, unknown, vocabularies)), task.kind)

    return predict


def by_linear_model(table: Table, train: Ints, asked: Ints) -> Floats:
    """A linear model of the features: numbers scaled, what is missing marked, frequent categories one by one. It fits in
    fractions of a second, and knows no interactions.

    Source: softmax regression (squared error for values) with an L2 penalty of 1e-3, by L-BFGS.
    """
    design_ND = torch.from_numpy(_design(table, np.concatenate([train, asked]), len(train)))
    known, unknown = design_ND[: len(train)], design_ND[len(train) :]
    is_regression = table.task.kind == "regression"
    label = table.rows.label[train]
    centre, scale = (float(label.mean()), float(label.std()) or 1.0) if is_regression else (0.0, 1.0)
    target = torch.from_numpy((label - centre) / scale).to(torch.float32 if is_regression else torch.int64)
    num_outputs = 1 if is_regression else len(table.task.classes)
    weight = torch.zeros(design_ND.shape[1], num_outputs, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=_NUM_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        output = known @ weight
        fit_loss = (
            torch.nn.functional.mse_loss(output[:, 0], target)
            if is_regression
            else torch.nn.functional.cross_entropy(output, target)
        )
        loss = fit_loss + _PENALTY * (weight[1:] ** 2).sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    output = (unknown @ weight.detach()).numpy()
    return to_scores(output, table.task.kind) * scale + centre if is_regression else to_scores(output, table.task.kind)


def _design(table: Table, rows: Ints, num_train: int) -> npt.NDArray[np.float32]:
    """A constant, then the features [N, D]; scales and categories come from the first `num_train` rows."""
    pieces = [np.ones((len(rows), 1), np.float32)]
    for spec in table.task.features:
        column = table.rows.features[spec.name][rows]
        if spec.kind == "categorical":
            words, code_N, count = np.unique(column.astype(str), return_inverse=True, return_counts=True)
            kept = np.argsort(-count, kind="stable")[: min(_MAX_CATEGORIES, len(words))]
            pieces.append((code_N[:, None] == kept).astype(np.float32))
            continue
        number = column.reshape(len(column), -1).astype(np.float64)
        is_missing = np.isnan(number)
        known = np.where(is_missing[:num_train].all(axis=0), 0.0, number[:num_train])
        mean, spread = np.nanmean(known, axis=0), np.nanstd(known, axis=0)
        scaled = np.clip(np.nan_to_num((number - mean) / np.where(spread > 0, spread, 1.0)), -6, 6)
        pieces.append(scaled.astype(np.float32))
        if is_missing.any():
            pieces.append(is_missing[:, is_missing.any(axis=0)].astype(np.float32))
    return np.concatenate(pieces, axis=1)
