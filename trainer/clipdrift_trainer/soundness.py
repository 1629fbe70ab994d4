"""Refuses a module that no file can stand for: one whose answer for a row hangs on anything but that row.

Serving asks in batches of any size and order, of rows that strangers send. Axes: N rows, K outputs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from clipdrift_trainer.export_error import ExportError
from clipdrift_trainer.lineage import weights_digest
from clipdrift_trainer.tasks.task import Rows, Task, encode

_NUM_ROWS = 64
_NUM_ALONE = 7
_TOLERANCE = 1e-4  # of logits, relative above 1: sums of other sizes round otherwise


def check_module(task: Task, module: nn.Module, rows: Rows, vocabularies: Mapping[str, tuple[str, ...]]) -> None:
    """Ask `module`, which must be in evaluation mode, for real rows: all at once, again, and one by one.

    Args:
        task: Names the features and classes.
        module: Takes encoded features by name.
        rows: Real rows, at least two; the first are taken, with missing numbers and an unknown category among them.
        vocabularies: Categories of each categorical feature.

    Raises:
        ExportError: It is scripted, fails on such rows, has outputs of another number or type, answers with NaN or infinity,
            changes its inputs or its own state, draws random numbers, or lets rows of a batch act on each other.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise ExportError("a scripted module cannot be exported; let build() give the module itself, without torch.jit.script")
    some = with_hard_cases(task, rows.select(np.arange(min(_NUM_ROWS, len(rows)))))
    before = weights_digest(module)
    first = _ask(task, module, some, vocabularies)
    again = _ask(task, module, some.select(np.arange(len(some))[::-1]), vocabularies)[::-1]
    if _differ(first, again):
        raise ExportError(
            "asked for the same rows twice, the module answers otherwise: it keeps state between calls, draws random numbers "
            "(dropout that does not know of eval()), or lets the rows of a batch act on each other; make its answer hang on "
            "the row alone"
        )
    if weights_digest(module) != before:
        raise ExportError(
            "the module changes its own buffers while it predicts; make it change them in training only (if self.training:)"
        )
    alone = np.concatenate(
        [_ask(task, module, some.select(np.array([row])), vocabularies) for row in range(min(_NUM_ALONE, len(some)))]
    )
    if _differ(first[: len(alone)], alone):
        raise ExportError(
            "the module answers otherwise for a row alone than for the same row among others: statistics of the batch are part "
            "of the answer (batch norm without running statistics, a mean or sort over rows); serving batches at will, so make "
            "the answer hang on the row alone"
        )


def with_hard_cases(task: Task, rows: Rows) -> Rows:
    """The same rows, the first with every nullable number missing and every category unknown."""
    features = {name: column.copy() for name, column in rows.features.items()}
    for spec in task.features:
        if spec.kind == "categorical":
            features[spec.name][0] = "never seen before"
        elif spec.nullable:
            features[spec.name][0] = np.nan
    return Rows(features, rows.label, rows.time_ms, rows.label_time_ms)


def _ask(task: Task, module: nn.Module, rows: Rows, vocabularies: Mapping[str, tuple[str, ...]]) -> npt.NDArray[np.float64]:
    given = encode(task, rows, vocabularies)
    asked = {name: tensor.clone() for name, tensor in given.items()}
    try:
        with torch.inference_mode():
            output = module(asked)
    except Exception as error:  # the user's own code: whatever it raises is the reason
        hint = "; an embedding needs one row more than there are categories, for unknown ones" * isinstance(error, IndexError)
        raise ExportError(
            f"the module fails on a batch of {len(rows)}, the first row with missing numbers and unknown categories: "
            f"{type(error).__name__}: {str(error)[:300]}{hint}"
        ) from error
    changed = [name for name in given if not torch.equal(torch.nan_to_num(asked[name]), torch.nan_to_num(given[name]))]
    if changed:
        raise ExportError(f"the module writes into its inputs {changed}; work on a copy (clone(), or + instead of +=)")
    return _checked_output(task, output, len(rows))


def _checked_output(task: Task, output: Any, num_rows: int) -> npt.NDArray[np.float64]:
    width = 1 if task.kind == "regression" else len(task.classes)
    wanted = "the value" if task.kind == "regression" else f"logits of {width} classes"
    if not isinstance(output, torch.Tensor):
        raise ExportError(
            f"the module must give one tensor [N, {width}] ({wanted}), got {type(output).__name__}; join several heads by "
            "torch.cat, or let a wrapper pick the one that is served"
        )
    if tuple(output.shape) != (num_rows, width) or not output.is_floating_point():
        raise ExportError(
            f"the module must give numbers [N, {width}] ({wanted}), got {output.dtype} {list(output.shape)} for {num_rows} rows"
        )
    answers: npt.NDArray[np.float64] = output.double().numpy()
    if not np.isfinite(answers).all():
        bad = np.flatnonzero(~np.isfinite(answers).all(axis=1))
        is_the_hard_one = bad.tolist() == [0]
        where = "the row with missing numbers and unknown categories" if is_the_hard_one else f"{len(bad)} of {num_rows} rows"
        raise ExportError(
            f"the module answers NaN or infinity for {where}; fill gaps inside it (torch.nan_to_num), or train again"
        )
    return answers


def _differ(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> bool:
    return bool((np.abs(one - other) > _TOLERANCE * np.maximum(1.0, np.abs(one))).any())
