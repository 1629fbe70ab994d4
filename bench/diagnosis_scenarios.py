"""Scenarios with a known cause: rows of a world, a model trained on some, and what goes wrong with the others.

Each cause changes the world before the model scores it (concept, mix, difficulty, base rate), the pipeline (features as they
are served), the labels after it, or the training. Axes: N rows of a day.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from diagnosis_worlds import DATASETS, Days, Floats, Model, Policy, Rows, Table, days_of, fit, table_of

NUM_VALIDATED, NUM_LIVE, SINCE, NUM_ROWS = 12, 24, 10, 400
NEVER = 10_000
EXPLORED = "explored"
LEAST_GAIN = 0.0005  # Brier score: `policy.clipping_margin`


class Day(NamedTuple):
    """A day of production as serving and labels tell it."""

    rows: Rows  # as served
    score_N: Floats
    label_N: npt.NDArray[np.int64]  # as told
    late_N: npt.NDArray[np.int64]  # days that the label comes after it was due; NEVER
    missing: frozenset[str] = frozenset()  # features that are not recorded


class Training(NamedTuple):
    """How the model in service was trained and what a twin with another bound gained."""

    model: Model
    policy: Policy
    is_faulty: bool = False
    twin: tuple[list[Floats], ...] = ()
    """Brier scores of the twins minus those of the models of the same seeds, a list of validated days each; () no twin."""


class Scenario(NamedTuple):
    words: str
    causes: set[str]
    is_clipping: bool
    """A looser bound makes the model better, on days that its contrast was not measured on."""
    table: Table
    training: Training
    train: Rows
    validated: list[Day]
    live: list[Day]
    explored: str = ""
    """Name of the exploration slice, declared."""


class Making:
    """What a scenario is made of, changed in place by what goes wrong."""

    def __init__(self, table: Table, days: Days, random: np.random.Generator) -> None:
        self.table, self.days, self.random = table, days, random
        self.live = list(days.live)
        self.missing: dict[int, frozenset[str]] = {}
        self.is_faulty = self.is_clipped = False
        self.explored = ""
        self.after_scoring: list[Callable[[int, Day], Day]] = []

    def since(self) -> range:
        return range(SINCE, len(self.live))

    def label(self, number: int, change: Callable[[Rows], npt.NDArray[np.int64]]) -> None:
        self.live[number] = self.live[number]._replace(label_N=change(self.live[number]))

    def column(self) -> int:
        """A feature that varies within every day."""
        first = self.days.train.x_ND
        varied = [i for i in range(first.shape[1]) if len(np.unique(first[:, i])) > 12]
        return int(self.random.choice(varied))


# --- the world ---


def nothing(making: Making) -> None:
    pass


def benign_shift(making: Making) -> None:
    """Rows with a larger value of one feature become more common, by degrees: of a feature for which the model is as good on
    them, which is tried out on all rows of those days."""
    train, model = making.days.train, fit(making.days.train, making.table.words, Policy(), 0)
    whole = Rows(*(np.concatenate(columns) for columns in zip(*making.days.live, strict=True)))
    losses_N = (model.score(whole) - whole.label_N) ** 2
    for column in np.argsort(np.abs(model.weights[: train.x_ND.shape[1]])):
        mean, spread = train.x_ND[:, column].mean(), train.x_ND[:, column].std()
        weight_N = np.exp(0.5 * np.clip((whole.x_ND[:, column] - mean) / spread, -3, 3))
        if abs(np.average(losses_N, weights=weight_N) - losses_N.mean()) < 0.004:
            break
    for number in making.since():
        rows, strength = making.live[number], 0.5 * min(1.0, (number - SINCE + 1) / 5)
        weight_N = np.exp(strength * np.clip((rows.x_ND[:, column] - mean) / spread, -3, 3))
        making.live[number] = _drawn(rows, weight_N, making.random)


def _drawn(rows: Rows, weight_N: Floats, random: np.random.Generator) -> Rows:
    return rows.take(np.sort(random.choice(len(weight_N), len(weight_N), p=weight_N / weight_N.sum())))


def drift(making: Making) -> None:
    """What a feature means turns round for more and more rows, in one half of its range."""
    train = making.days.train
    column = int(making.random.integers(train.x_ND.shape[1]))
    middle, side = np.median(train.x_ND[:, column]), making.random.choice([-1, 1])
    for number in making.since():
        share = 0.65 * min(1.0, (number - SINCE + 1) / 6)
        making.label(
            number,
            lambda rows, share=share: _flipped(
                rows.label_N, (side * (rows.x_ND[:, column] - middle) >= 0), share, making.random
            ),
        )


def _flipped(
    label_N: npt.NDArray[np.int64], chosen_N: npt.NDArray[np.bool_], share: float, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    return np.where(chosen_N & (random.random(len(label_N)) < share), 1 - label_N, label_N)


def calibration(making: Making) -> None:
    """The event becomes more or less common among the same kinds of rows."""
    odds = float(making.random.choice([1 / 6, 1 / 5, 5.0, 6.0]))
    for number in making.since():
        rows = making.live[number]
        strength = odds ** min(1.0, (number - SINCE + 1) / 3)
        making.live[number] = _drawn(rows, np.where(rows.label_N == 1, strength, 1.0), making.random)


def mix_shift(making: Making) -> None:
    """A slice that always was hard, and was trained on as much as any, grows."""
    hard = int(making.random.integers(len(making.table.slice_names)))

    def harder(rows: Rows) -> Rows:
        coin_N = making.random.random(len(rows.label_N)) < 0.5
        guess_N = making.random.integers(0, 2, len(rows.label_N))
        return rows._replace(label_N=np.where((rows.slice_N == hard) & coin_N, guess_N, rows.label_N))

    _change_all(making, harder)
    _grow(making, hard, 0.85)


def under_trained_slice(making: Making) -> None:
    """A slice with a rule of its own, of which training saw next to nothing, grows."""
    rare = int(making.random.integers(len(making.table.slice_names)))

    def own_rule(rows: Rows) -> Rows:
        coin_N = making.random.random(len(rows.label_N)) < 0.6
        return rows._replace(label_N=np.where((rows.slice_N == rare) & coin_N, 1 - rows.label_N, rows.label_N))

    def thinned(rows: Rows, share: float) -> Rows:
        return rows.take(np.flatnonzero((rows.slice_N != rare) | (making.random.random(len(rows.slice_N)) < share)))

    _change_all(making, own_rule)
    odds = 0.04 / max(1e-9, float((making.days.train.slice_N == rare).mean()))
    days = making.days
    making.days = Days(thinned(days.train, odds), [thinned(rows, 4 * odds) for rows in days.validated], days.live)
    whole = list(making.live)
    making.live = [thinned(rows, 4 * odds) for rows in making.live]
    for number in making.since():
        making.live[number] = whole[number]
    _grow(making, rare, 0.7)


def _change_all(making: Making, change: Callable[[Rows], Rows]) -> None:
    days = making.days
    making.days = Days(change(days.train), [change(rows) for rows in days.validated], days.live)
    making.live = [change(rows) for rows in making.live]


def _grow(making: Making, index: int, share: float) -> None:
    for number in making.since():
        rows = making.live[number]
        now = (rows.slice_N == index).mean()
        wanted = now + (share - now) * min(1.0, (number - SINCE + 1) / 3)
        weight_N = np.where(rows.slice_N == index, wanted / now, (1 - wanted) / (1 - now))
        making.live[number] = _drawn(rows, weight_N, making.random)


def slice_drift(making: Making) -> None:
    """In one slice, labels no longer follow what they followed."""
    index = int(making.random.integers(len(making.table.slice_names)))
    for number in making.since():
        share = 0.75 * min(1.0, (number - SINCE + 1) / 4)
        making.label(number, lambda rows, share=share: _flipped(rows.label_N, rows.slice_N == index, share, making.random))


def harder_days(making: Making) -> None:
    """Rows that are hard to tell, and that the model says are hard to tell, become common."""
    model = fit(making.days.train, making.table.words, Policy(), 0)
    for number in making.since():
        rows = making.live[number]
        score_N = np.clip(model.score(rows), 1e-6, 1 - 1e-6)
        making.live[number] = _drawn(rows, np.exp(-1.5 * np.abs(np.log(score_N / (1 - score_N)))), making.random)


def feedback_loop(making: Making) -> None:
    """People do what the model says, and so the label is what the model said, but for a share of cases decided by lot."""
    index = 0
    making.table = making.table._replace(slice_names=(EXPLORED, *making.table.slice_names))

    def dealt(rows: Rows) -> Rows:
        return rows._replace(slice_N=np.where(making.random.random(len(rows.slice_N)) < 0.2, index, rows.slice_N + 1))

    _change_all(making, dealt)
    making.explored = EXPLORED
    share = float(making.random.uniform(0.5, 0.8))

    def follow(number: int, day: Day) -> Day:
        follows_N = (making.random.random(len(day.label_N)) < share) & (day.rows.slice_N != index)
        return day._replace(label_N=np.where(follows_N, (day.score_N > 0.5).astype(np.int64), day.label_N))

    making.after_scoring.append(follow)


# --- the pipeline ---


def _serve(making: Making, first: int, change: Callable[[int, Rows], Rows]) -> None:
    for number in range(first, len(making.live)):
        making.live[number] = change(number, making.live[number])


def _with(rows: Rows, column: int, values_N: Floats) -> Rows:
    x_ND = rows.x_ND.copy()
    x_ND[:, column] = values_N
    return rows._replace(x_ND=x_ND)


def schema_change(making: Making) -> None:
    kind, column = int(making.random.integers(4)), making.column()
    if kind == 0:
        _serve(making, SINCE, lambda _, rows: _with(rows, column, np.full(len(rows.label_N), np.nan)))
    elif kind == 1:
        _serve(
            making, SINCE, lambda _, rows: rows._replace(word_N=np.array([f" {one}".upper() for one in rows.word_N], object))
        )
    elif kind == 2:
        for number in making.since():
            making.missing[number] = frozenset({making.table.names[column]})
        _serve(making, SINCE, lambda _, rows: _with(rows, column, np.full(len(rows.label_N), np.nan)))
    else:
        share = float(making.random.uniform(0.4, 0.8))
        _serve(making, SINCE, lambda _, rows: _with(
            rows, column, np.where(making.random.random(len(rows.label_N)) < share, np.nan, rows.x_ND[:, column])
        ))  # fmt: skip


def _conversion(making: Making, column: int) -> tuple[float, float]:
    """A conversion of the feature's kind that moves it by three quarters of its spread."""
    values = making.days.train.x_ND[:, column]
    if making.table.names[column] == "temperature_c":
        return 1.8, 32.0
    scales = (100.0, 0.01, 1000.0, 60.0, 2.54, 3.28084, 2.204623, 1 / 1.609344)
    known = [(scale, 0.0) for scale in scales]
    known = [one for one in known if abs((values * one[0] + one[1]).mean() - values.mean()) > 0.75 * values.std()]
    return known[int(making.random.integers(len(known)))] if known else (-1.0, 0.0)


def unit_change(making: Making) -> None:
    column = making.column()
    scale, offset = _conversion(making, column)
    _serve(making, SINCE, lambda _, rows: _with(rows, column, rows.x_ND[:, column] * scale + offset))


def shifted_feature(making: Making) -> None:
    column = making.column()
    values = making.days.train.x_ND[:, column]
    offset = float(making.random.choice([-1, 1]) * making.random.uniform(0.8, 1.6) * values.std())
    _serve(making, SINCE, lambda _, rows: _with(rows, column, rows.x_ND[:, column] + offset))


def constant_feature(making: Making) -> None:
    column = making.column()
    values = making.days.train.x_ND[:, column]
    stuck = float(making.random.choice([values.mean(), np.median(values), 0.0, float(making.random.choice(values))]))
    _serve(making, SINCE, lambda _, rows: _with(rows, column, np.full(len(rows.label_N), stuck)))


def stale_feature(making: Making) -> None:
    """The feed stops: each day gets the values of the last good day again."""
    column = making.column()
    old = making.live[SINCE - 1].x_ND[:, column].copy()
    _serve(making, SINCE, lambda _, rows: _with(rows, column, np.resize(old, len(rows.label_N))))


def training_serving_skew(making: Making) -> None:
    """Serving makes a feature otherwise than training did, from the first request on."""
    kind, column = int(making.random.integers(3)), making.column()
    values = making.days.train.x_ND[:, column]
    scale, offset = _conversion(making, column)
    if kind == 0:
        _serve(making, 0, lambda _, rows: _with(rows, column, rows.x_ND[:, column] * scale + offset))
    elif kind == 1:
        stuck = float(np.median(values))
        _serve(making, 0, lambda _, rows: _with(rows, column, np.full(len(rows.label_N), stuck)))
    else:
        moved = 1.5 * values.std()
        _serve(making, 0, lambda _, rows: _with(rows, column, rows.x_ND[:, column] + moved))


# --- labels ---


def labels_flipped(making: Making) -> None:
    making.after_scoring.append(lambda number, day: day._replace(label_N=1 - day.label_N))


def labels_one_class(making: Making) -> None:
    one = int(making.random.integers(2))
    making.after_scoring.append(lambda number, day: day._replace(label_N=np.full(len(day.label_N), one)))


def labels_missing_for_class(making: Making) -> None:
    one, share = int(making.random.integers(2)), float(making.random.uniform(0.8, 1.0))

    def lose(number: int, day: Day) -> Day:
        lost_N = (day.label_N == one) & (making.random.random(len(day.label_N)) < share)
        return day._replace(late_N=np.where(lost_N, NEVER, day.late_N))

    making.after_scoring.append(lose)


def labels_delayed_by_class(making: Making) -> None:
    one, days = int(making.random.integers(2)), int(making.random.integers(2, 5))
    making.after_scoring.append(
        lambda number, day: day._replace(late_N=np.where(day.label_N == one, np.minimum(NEVER, day.late_N + days), day.late_N))
    )


def labels_misjoined(making: Making) -> None:
    making.after_scoring.append(lambda number, day: day._replace(label_N=making.random.permutation(day.label_N)))


# --- the training ---


def training_fault(making: Making) -> None:
    making.is_faulty = True


def clipping(making: Making) -> None:
    making.is_clipped = True


_WORLD = {
    "none": nothing, "none (benign shift)": benign_shift, "drift": drift, "calibration": calibration, "mix_shift": mix_shift,
    "under_trained_slice": under_trained_slice, "slice_drift": slice_drift, "harder_days": harder_days,
    "feedback_loop": feedback_loop,
}  # fmt: skip
_PIPELINE = {
    "schema_change": schema_change, "unit_change": unit_change, "shifted_feature": shifted_feature,
    "constant_feature": constant_feature, "stale_feature": stale_feature, "training_serving_skew": training_serving_skew,
}  # fmt: skip
_LABELS = {
    "labels_flipped": labels_flipped, "labels_one_class": labels_one_class,
    "labels_missing_for_class": labels_missing_for_class,
    "labels_delayed_by_class": labels_delayed_by_class, "labels_misjoined": labels_misjoined,
}  # fmt: skip
_TRAINING = {"training_fault": training_fault, "clipping": clipping}
_ALL = _WORLD | _TRAINING | _PIPELINE | _LABELS
CAUSES = tuple(_ALL)
NUM_EACH = {cause: 16 if cause == "none" else 8 for cause in CAUSES}
PAIRS = (
    ("unit_change", "labels_flipped"), ("schema_change", "labels_misjoined"), ("constant_feature", "slice_drift"),
    ("shifted_feature", "mix_shift"), ("stale_feature", "labels_one_class"), ("training_fault", "unit_change"),
    ("training_fault", "mix_shift"), ("clipping", "mix_shift"), ("clipping", "slice_drift"), ("mix_shift", "slice_drift"),
    ("training_serving_skew", "labels_missing_for_class"), ("feedback_loop", "schema_change"),
)  # fmt: skip
_ORDER = {cause: place for place, cause in enumerate(_ALL)}


def make(one: str, other: str, seed: int) -> Scenario:
    """The scenario of one cause (`one == other`) or of two; the data set follows from the seed."""
    random = np.random.default_rng(seed)
    name = DATASETS[seed % len(DATASETS)]
    making = Making(table_of(name), days_of(table_of(name), random, NUM_VALIDATED, NUM_LIVE, NUM_ROWS), random)
    causes = sorted({one, other}, key=lambda cause: _ORDER[cause])
    for cause in causes:
        _ALL[cause](making)
    training = _trained(making, seed)
    assert training.policy == _HELD_BACK or not making.is_clipped, "the bound that is to do harm did none"
    validated = [_scored(rows, training.model) for rows in making.days.validated]
    live = []
    for number, rows in enumerate(making.live):
        day = _scored(rows, training.model)._replace(missing=making.missing.get(number, frozenset()))
        for change in making.after_scoring if number >= SINCE else ():
            day = change(number, day)
        live.append(day)
    truth = {cause.split(" (")[0] for cause in causes}
    return Scenario(
        words=f"{' + '.join(causes)} ({name}, seed {seed})", causes=truth, is_clipping="clipping" in truth,
        table=making.table, training=training, train=making.days.train, validated=validated, live=live,
        explored=making.explored,
    )  # fmt: skip


def _scored(rows: Rows, model: Model) -> Day:
    score_N = model.score(rows)
    return Day(rows, score_N, rows.label_N, np.zeros(len(score_N), np.int64))


# Trainings in which clipping does no harm, however much it takes: with Adam, and with a learning rate that makes up for it.
_HARMLESS = (
    Policy("adam", 0.002, 0.02), Policy("sgd", 0.02, 6.0), Policy("sgd", None, 0.5), Policy("sgd", 1.0, 0.5),
    Policy("sgd", 0.02, 6.0),
)  # fmt: skip
_HELD_BACK = Policy("sgd", 0.002, 0.5)


def _trained(making: Making, seed: int) -> Training:
    """The model in service; for every other one that was clipped, a twin with a bound that clips little."""
    days, words = making.days, making.table.words
    policy = _HELD_BACK if making.is_clipped else _HARMLESS[seed // len(DATASETS) % len(_HARMLESS)]
    if _is_held_back(making, policy, seed) != making.is_clipped:
        policy = _HARMLESS[3]  # on these rows, that policy was not what it is here for
    model = fit(days.train, words, policy, seed)
    has_twin = policy.max_norm is not None and (making.is_clipped or making.random.random() < 0.6)
    if not has_twin:
        return Training(model, policy, making.is_faulty)
    twins = [fit(days.train, words, policy._replace(max_norm=1.0), seed + k) for k in range(2)]
    same = [model, fit(days.train, words, policy, seed + 1)]
    differences = [
        [_brier(twin, rows) - _brier(one, rows) for rows in days.validated] for twin, one in zip(twins, same, strict=True)
    ]
    return Training(model, policy, making.is_faulty, tuple(differences))


def _brier(model: Model, rows: Rows) -> Floats:
    loss_N: Floats = (model.score(rows) - rows.label_N) ** 2
    return loss_N


def _is_held_back(making: Making, policy: Policy, seed: int) -> bool:
    """Whether a looser bound truly makes the model better, by more than the least that counts: seen on the days of production
    before anything was done to them, and with seeds that no contrast is made of."""
    if policy.max_norm is None:
        return False
    looser = policy._replace(max_norm=1.0)
    models = [[fit(making.days.train, making.table.words, one, seed + 10 + k) for k in range(4)] for one in (looser, policy)]
    twin, same = (np.mean([[_brier(one, rows).mean() for rows in making.days.live] for one in group]) for group in models)
    return bool(twin - same < -LEAST_GAIN)
