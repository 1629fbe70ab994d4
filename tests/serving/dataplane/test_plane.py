"""What arrives in one turn of the loop runs together, is recorded once, and comes apart again."""

import queue

import msgspec
import numpy as np
import pytest
from toy_service import KEY, KeptEvents, deploy, write_model, yes

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.dataplane.asked import Answer, Asked
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.model import Measured
from clipdrift_serving.dataplane.plane import DataPlane
from clipdrift_serving.dataplane.receipts import ReceiptBook
from clipdrift_serving.dataplane.repository import ModelRepository
from clipdrift_serving.recording.recorder import Recorder


class Turns:
    """An event loop that a test turns by hand; calls may come from any thread."""

    def __init__(self) -> None:
        self._calls: queue.Queue = queue.Queue()

    def soon(self, call) -> None:
        self._calls.put(call)

    def turn(self, seconds: float = 0.0) -> None:
        """Run the next call; waits for it so long where it comes from another thread."""
        self._calls.get(timeout=seconds or None, block=bool(seconds))()


class Made:
    """A data plane on such a loop, with the toy model in service."""

    def __init__(self, folder, measured: Measured | None = None, **config: object) -> None:
        self.loop, self.spool, metrics = Turns(), KeptEvents(), MetricSet()
        self.repository = ModelRepository(metrics)
        self.repository.is_caught_up = True
        assert self.repository.apply(deploy(write_model(folder, "v1", 0.0))) == "done"
        if measured is not None:
            self.repository.get("toy").champion.measured = measured
        self.book = ReceiptBook([KEY], "0123456789abcdef")
        self.recorder = Recorder(self.spool, "0123456789abcdef", metrics, 10_000)
        self.plane = DataPlane(
            ServingConfig(receipt_keys=(KEY,), **config), self.repository, self.book, self.recorder, ManualClock(now_ms=5),
            metrics, schedule=self.loop.soon, soon=self.loop.soon,
        )  # fmt: skip
        self.answers: dict[str, Answer | RequestError] = {}

    def ask(self, name: str, *x: float, carrier: str = "UA") -> None:
        """Submit rows with these x; the answer is kept under the name."""
        inputs = {
            "x": np.array(x, "f4"),
            "y": np.zeros(len(x), "f4"),
            "carrier": np.array([carrier] * len(x), object),
        }
        self.plane.submit(Asked("toy", inputs, lambda answer: self.answers.__setitem__(name, answer)))

    @property
    def usage(self):
        return self.plane.usage[("toy", "v1")]


def check(answer: Answer | RequestError, *x: float) -> None:
    assert isinstance(answer, Answer)
    np.testing.assert_allclose(answer.outputs["probabilities"][:, 1], [yes(one, 0.0, 1.0, 0.0) for one in x], rtol=1e-6)
    assert len(answer.receipts) == len(x)


def test_requests_of_one_turn_run_once_and_each_gets_its_own_rows_and_receipts(tmp_path):
    made = Made(tmp_path)
    made.ask("a", 0.5)
    made.ask("b", 1.0, 2.0)
    made.ask("c", -3.0)
    assert not made.answers
    made.loop.turn()
    for name, x in (("a", (0.5,)), ("b", (1.0, 2.0)), ("c", (-3.0,))):
        check(made.answers[name], *x)
    assert (made.usage.num_runs, made.usage.num_requests, made.usage.num_rows) == (1, 3, 4)
    tokens = [token for name in "abc" for token in made.answers[name].receipts]
    assert [made.book.verify(token).sequence for token in tokens] == [0, 1, 2, 3]
    made.recorder.flush()
    (event,) = made.spool.events
    assert event.sequence.array().tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(
        event.scores.array()[:, 1], [yes(one, 0.0, 1.0, 0.0) for one in (0.5, 1.0, 2.0, -3.0)], rtol=1e-6
    )


def test_what_cannot_be_answered_fails_alone_and_nothing_of_it_is_recorded(tmp_path):
    made = Made(tmp_path)
    made.ask("good", 0.5)
    made.ask("bad", float("inf"))
    made.ask("fine", 1.5)
    made.loop.turn()
    check(made.answers["good"], 0.5)
    check(made.answers["fine"], 1.5)
    assert isinstance(made.answers["bad"], RequestError)
    assert (made.usage.num_requests, made.usage.num_failed) == (2, 1)
    made.recorder.flush()
    assert sum(len(event.sequence) for event in made.spool.events) == 2
    assert made.plane.num_waiting == 0


def test_a_model_that_mixes_rows_runs_each_request_by_itself(tmp_path):
    made = Made(tmp_path, Measured(is_batchable=False))
    for number in range(3):
        made.ask(str(number), float(number))
    made.loop.turn()
    for number in range(3):
        check(made.answers[str(number)], float(number))
    assert made.usage.num_runs == 3


def test_a_turn_is_cut_into_runs_of_so_many_rows_at_most(tmp_path):
    made = Made(tmp_path, max_batch_rows=4)
    for number in range(5):
        made.ask(str(number), 0.5, 1.5)
    made.ask("large", *range(9))  # more than fits: it runs alone
    made.loop.turn()
    assert made.usage.num_runs == 4
    check(made.answers["large"], *range(9))


def test_a_slow_model_runs_in_a_thread_of_its_own_and_what_comes_meanwhile_is_its_next_batch(tmp_path):
    made = Made(tmp_path, Measured(seconds_per_run=1.0))
    made.ask("first", 0.5)
    made.loop.turn()
    assert not made.answers
    made.ask("second", 1.5)
    made.ask("third", 2.5)
    made.loop.turn(10.0)
    made.loop.turn(10.0)
    made.loop.turn(10.0)
    for name, x in (("first", 0.5), ("second", 1.5), ("third", 2.5)):
        check(made.answers[name], x)
    assert made.usage.num_runs == 2


def test_what_fails_in_a_slow_model_is_tried_one_by_one_in_its_thread(tmp_path):
    made = Made(tmp_path, Measured(seconds_per_run=1.0))
    made.ask("good", 0.5)
    made.ask("bad", float("inf"))
    made.loop.turn()
    for _ in range(3):  # together, then each
        made.loop.turn(10.0)
    check(made.answers["good"], 0.5)
    assert isinstance(made.answers["bad"], RequestError)


def test_a_request_with_inputs_of_the_wrong_form_never_waits(tmp_path):
    made = Made(tmp_path)
    made.plane.submit(Asked("toy", {"x": np.zeros(1, "f4")}, lambda answer: made.answers.__setitem__("a", answer)))
    made.plane.submit(Asked("none", {}, lambda answer: made.answers.__setitem__("b", answer)))
    faults = {name: answer.fault for name, answer in made.answers.items()}
    assert faults == {"a": "bad_input", "b": "unknown_model"}
    with pytest.raises(queue.Empty):
        made.loop.turn()


def test_answers_and_failures_are_told_with_the_rows_of_their_role(tmp_path):
    made = Made(tmp_path)
    made.repository.apply(
        msgspec.structs.replace(
            deploy(write_model(tmp_path, "v1", 0.0)),
            generation=9,
            canary=deploy(write_model(tmp_path, "v2", 1.0)).champion,
            canary_weight=0.5,
        )
    )
    for number in range(10):
        made.ask(str(number), float("inf") if number in (3, 4, 5) else 0.5)
        made.loop.turn()
    made.recorder.flush()

    told = {batch.role: batch for batch in made.spool.events}
    by_role = {role: (batch.num_failed, sum(batch.latency_histogram.values())) for role, batch in told.items()}
    assert {role: sum(numbers) for role, numbers in by_role.items()} == {"champion": 5, "canary": 5}
    assert sum(failed for failed, _ in by_role.values()) == 3
    assert {batch.generation for batch in made.spool.events} == {9}


def test_rows_that_a_shadow_cannot_answer_are_told_as_its_failures(tmp_path, monkeypatch):
    made = Made(tmp_path)
    shadow = deploy(write_model(tmp_path, "v2", 1.0)).champion
    made.repository.apply(msgspec.structs.replace(deploy(write_model(tmp_path, "v1", 0.0)), generation=9, shadow=shadow))
    loaded = made.repository.get("toy").shadow

    def refuse(_):
        raise RequestError("bad_input", "an input of another kind")

    monkeypatch.setattr(loaded, "infer", refuse)
    made.ask("one", 0.5, 1.5)
    made.loop.turn()
    made.loop.turn(5.0)
    made.recorder.flush()

    told = {batch.role: (batch.version, batch.num_failed, len(batch.sequence)) for batch in made.spool.events}
    assert told == {"champion": ("v1", 0, 2), "shadow": ("v2", 2, 0)}
    check(made.answers["one"], 0.5, 1.5)
