"""How near another answer of a model lies that can only be asked: HopSkipJump needs no slope, so it attacks the very file that
is served.

Axes: N rows, D numbers of a row that may move, B points asked at once.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from clipdrift_contract.errors import ClipdriftError
from clipdrift_trainer.evaluation.scores import Floats
from clipdrift_trainer.tasks.task import Rows

Answer = Callable[[Rows], Floats]
_FAR = 10.0  # standard deviations: from so far an attack may begin
_NUM_STARTS = 100


class RobustnessExtraError(ClipdriftError):
    """The library that attacks is not installed; the message says how to get it."""


def turning_distances(
    answer: Answer,
    rows: Rows,
    scales: Mapping[str, npt.NDArray[np.float64]],
    *,
    max_iter: int = 10,
    max_eval: int = 200,
    seed: int = 0,
    budget_seconds: float = float("inf"),
    timer: Callable[[], float] = time.perf_counter,
) -> Floats:
    """By how much the numbers of a row must change until the answer is wrong, at most: the largest change of one of them, in
    standard deviations. Shape [N], shorter where `budget_seconds` is over before all rows were attacked.

    0 where the answer is wrong as it is; infinite where no point within 10 standard deviations was found that is answered
    otherwise. Missing values and categories stay as they are.

    Args:
        answer: Class probabilities [B, K] of raw rows.
        rows: What to attack.
        scales: The standard deviation of each numeric feature, in its shape; where it is 0 nothing is moved.
        max_iter: Steps of an attack.
        max_eval: Points asked in a step, at most.
        seed: Of the points asked. While this runs, numpy's global generator is not others' to use.
        budget_seconds: No attack begins after it.
        timer: For tests.

    Raises:
        RobustnessExtraError: adversarial-robustness-toolbox is not installed.

    Source: Chen, Jordan, Wainwright 2020 (arXiv 1904.02144), algorithm 2 for the L-infinity norm, as in
    adversarial-robustness-toolbox; its start is drawn here, so that it can be seeded.
    """
    attack = _library()
    started = timer()
    found: list[float] = []
    for index in range(len(rows)):
        if index and timer() - started > budget_seconds:
            break
        one = _Row(answer, rows.select(np.array([index])), scales)
        found.append(one.distance(attack, max_iter, max_eval, seed + index))
    return np.array(found, np.float64)


class _Row:
    """One row and how to ask for points near it."""

    def __init__(self, answer: Answer, row: Rows, scales: Mapping[str, npt.NDArray[np.float64]]) -> None:
        self._answer, self._row = answer, row
        self._label = int(row.label[0])
        self._moves = {
            name: np.isfinite(row.features[name][0].astype(float)) & (np.asarray(scale) > 0) for name, scale in scales.items()
        }
        self._scales = {name: np.broadcast_to(np.asarray(scales[name]), moves.shape) for name, moves in self._moves.items()}
        self.num = sum(int(moves.sum()) for moves in self._moves.values())

    def ask(self, point_BD: npt.NDArray[Any]) -> Floats:
        """The answers at points, given as changes in standard deviations."""
        num = len(point_BD)
        features = {name: np.repeat(column, num, axis=0) for name, column in self._row.features.items()}
        at = 0
        for name, moves in self._moves.items():
            width = int(moves.sum())
            changed = features[name].astype(np.float64)
            changed[:, moves] += point_BD[:, at : at + width] * self._scales[name][moves]
            features[name], at = changed, at + width
        row = self._row
        return self._answer(
            Rows(features, np.repeat(row.label, num), np.repeat(row.time_ms, num), np.repeat(row.label_time_ms, num))
        )

    def distance(self, attack: Callable[..., Any], max_iter: int, max_eval: int, seed: int) -> float:
        if not self._is_right(np.zeros((1, self.num)))[0]:
            return 0.0
        start_BD = np.random.default_rng(seed).uniform(-_FAR, _FAR, (_NUM_STARTS, self.num)).astype(np.float32)
        wrong_BD = start_BD[~self._is_right(start_BD)] if self.num else start_BD[:0]
        if not len(wrong_BD):
            return float("inf")
        num_classes = self.ask(wrong_BD[:1]).shape[1]
        with _seeded(seed):
            turned_1D = attack(self.ask, self.num, num_classes, wrong_BD[:1], max_iter, max_eval)
        is_turned = not self._is_right(turned_1D)[0]
        return float(np.abs(turned_1D if is_turned else wrong_BD[:1]).max())

    def _is_right(self, point_BD: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        is_right_B: npt.NDArray[np.bool_] = self.ask(point_BD).argmax(axis=1) == self._label
        return is_right_B


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The library draws from numpy's global generator."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def _library() -> Callable[..., Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries that it could use
            from art.attacks.evasion import HopSkipJump  # noqa: PLC0415  two seconds that only this check pays
            from art.estimators.classification import BlackBoxClassifier  # noqa: PLC0415  as above
    except ImportError as error:
        raise RobustnessExtraError(
            f"HopSkipJump needs adversarial-robustness-toolbox ({error}); pip install 'clipdrift[robustness]'"
        ) from error

    def attack(
        ask: Callable[[Any], Floats], num: int, num_classes: int, start_1D: npt.NDArray[Any], max_iter: int, max_eval: int
    ) -> npt.NDArray[Any]:
        model = BlackBoxClassifier(lambda point_BD: ask(point_BD).astype(np.float32), (num,), num_classes, (-_FAR, _FAR))
        evasion = HopSkipJump(
            model, norm=np.inf, max_iter=max_iter, max_eval=max_eval, init_eval=min(50, max_eval), verbose=False
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            turned: npt.NDArray[Any] = evasion.generate(x=np.zeros((1, num), np.float32), x_adv_init=start_1D.copy())
        return turned

    return attack
