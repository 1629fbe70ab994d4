"""Traffic as a serving process would tell it: the newest deployment decides who answers, in which role."""

import msgspec
import numpy as np
from dialogue import MS_PER_HOUR, labels, outcome, predictions, rows, run_end

from clipdrift_contract.columns import Column
from clipdrift_contract.events import Decision, Deployment


def newest(dialogue):
    return max(dialogue.published(Deployment).values(), key=lambda one: one.generation)


def actions(dialogue):
    """What was decided of outcomes and rollouts, in order."""
    found = [one for one in dialogue.published(Decision).values() if one.action not in ("none", "alert", "retrain", "ask")]
    return [one.action for one in found]


def chosen(columns, mask):
    return {name: values[mask] for name, values in columns.items()}


def wrong_more_often(columns, share, seed):
    """The same rows as another model answers them: the answer is turned round on a share of them."""
    turned = np.random.default_rng(seed).random(len(columns["label"])) < share
    predicted = np.where(turned, 1 - columns["predicted"], columns["predicted"])
    scores = np.where(turned[:, None], columns["scores"][:, ::-1], columns["scores"])
    return {**columns, "predicted": predicted, "scores": scores}


def day_of_rollout(dialogue, day, *, worse=0.0, num_rows=2_000, at=None, delay_ms=MS_PER_HOUR, is_labelled=True, **changed):
    """One day of predictions and labels under the newest deployment (or `at`): the candidate is wrong more often by `worse`."""
    deployment = at or newest(dialogue)
    columns = rows(day, num_rows, accuracy=0.8)
    first = day * 10_000
    is_canary = np.random.default_rng([day, 7]).random(num_rows) < deployment.canary_weight
    events = []
    for role, mask, served in (
        ("champion", ~is_canary, deployment.champion), ("canary", is_canary, deployment.canary),
        ("shadow", ~is_canary, deployment.shadow),
    ):  # fmt: skip
        if served is None or not mask.any():
            continue
        mine = chosen(columns, mask)
        mine = mine if role == "champion" else wrong_more_often(mine, worse, day)
        numbers = Column.of((first + np.flatnonzero(mask)).astype("u8"))
        known = {"version": served.version, "role": role, "generation": deployment.generation, "sequence": numbers, **changed}
        histogram = {} if role == "shadow" else {40: int(mask.sum())}
        events.append(predictions(mine, latency_histogram=histogram, **known))
        if role != "shadow" and is_labelled:
            events.append(labels(mine, delay_ms=delay_ms, **known))
    return events


def begun(dialogue, *, version="v2", day=6):
    """A candidate that has passed the gate, on its way."""
    dialogue.go(run_end(), *(batch for number in range(2, day) for batch in rows_of_champion(number)))
    request = dialogue.ask(dialogue.engine.commands.order, "pump", f"to see {version}", "a person")
    dialogue.go(run_end(version, retrain_key=request.key, day=day))
    dialogue.go(outcome(request, version=version, wall_seconds=30.0, cpu_seconds=20.0))
    return request


def rows_of_champion(day):
    columns = rows(day)
    return predictions(columns, first=day * 10_000), labels(columns, first=day * 10_000)


def go_days(dialogue, first, last, *, worse=0.0, until=None, **more):
    """Day after day of traffic; the day at which `until` held, or None."""
    for day in range(first, last):
        dialogue.go(*day_of_rollout(dialogue, day, worse=worse, **more))
        if until is not None and until():
            return day
    return None


def replaced(deployment, **changed):
    return msgspec.structs.replace(deployment, **changed)
