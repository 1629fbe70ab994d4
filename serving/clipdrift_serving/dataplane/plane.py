"""The data plane: one place that answers inferences, whatever transport asked.

What is submitted in one turn of the event loop runs together: requests of one version are joined, run once, recorded once, and
split again. There is no timer, so a lone request waits for nothing.
"""

from collections.abc import Callable, Mapping
from time import perf_counter, perf_counter_ns, thread_time_ns
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from clipdrift_contract import metrics as names
from clipdrift_contract.clock import LATEST_MS, Clock
from clipdrift_contract.events import Role
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.dataplane.asked import Answer, Asked
from clipdrift_serving.dataplane.elsewhere import ElsewhereDesk, MadeElsewhere
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.labels import Feedback, FindReceipts, GivenLabels, LabelDesk, no_request_ids
from clipdrift_serving.dataplane.ledger import Ledger
from clipdrift_serving.dataplane.live import Live, LiveFigures
from clipdrift_serving.dataplane.model import Head, LoadedModel
from clipdrift_serving.dataplane.receipts import ReceiptBook
from clipdrift_serving.dataplane.repository import InService, ModelRepository
from clipdrift_serving.dataplane.shadow import Shadowed, ShadowRunner
from clipdrift_serving.dataplane.tensors import Tensor, check_inputs, check_values
from clipdrift_serving.dataplane.usage import Usage
from clipdrift_serving.dataplane.worker import Schedule, Worker
from clipdrift_serving.recording.recorder import Recorder
from clipdrift_serving.recording.tally import Tally

_EARLIEST_MS = 0


class _Waiting(NamedTuple):
    """A request whose form is right, waiting for its run."""

    asked: Asked
    inputs: dict[str, Tensor]
    num_rows: int
    event_time_N: npt.NDArray[np.int64] | None  # None: the server's clock


class _Served:
    """A version in its role, with what is counted for it; made once a deployment."""

    __slots__ = ("count_rows", "generation", "live", "model", "name", "role", "serving", "shadow_tally", "tally", "usage")

    def __init__(
        self,
        name: str,
        serving: InService,
        model: LoadedModel,
        role: Role,
        usage: Usage,
        tally: Tally,
        shadow_tally: Tally,
        live: Live,
        count_rows: Callable[[float], None],
    ) -> None:
        self.name = name
        self.serving = serving
        self.generation = serving.generation
        self.model = model
        self.role = role
        self.usage = usage
        self.tally = tally
        self.shadow_tally = shadow_tally
        self.live = live
        self.count_rows = count_rows


class _Ran(NamedTuple):
    """What one run of the session gave, and how long it took."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    heads: list[tuple[Head, npt.NDArray[np.float64], npt.NDArray[np.float32]]]
    compute_ns: int
    cpu_ns: int


class DataPlane:
    """Answers and records. One thread (the event loop's) only.

    Args:
        schedule: Calls a function in the loop's next turn, from any thread (`loop.call_soon_threadsafe`); None: each request
            runs as it is submitted.
        soon: The same from the loop's own thread (`loop.call_soon`).
    """

    def __init__(
        self,
        config: ServingConfig,
        repository: ModelRepository,
        receipts: ReceiptBook,
        recorder: Recorder,
        clock: Clock,
        metrics: MetricSet,
        *,
        schedule: Schedule | None = None,
        soon: Schedule | None = None,
        find: FindReceipts = no_request_ids,
    ) -> None:
        self.repository = repository
        self.live = LiveFigures()
        self.usage: dict[tuple[str, str], Usage] = {}  # by name and version
        self.num_waiting = 0
        self._config = config
        self._recorder = recorder
        self._ledger = Ledger(receipts, recorder, clock, must_write=config.record_before_answer)
        self._elsewhere = ElsewhereDesk(repository, self._ledger, config.max_rows)
        self._labels = LabelDesk(config, repository, receipts, recorder, clock, metrics, self.live, find)
        self._schedule = schedule
        self._soon = soon or schedule
        self._rows = metrics.counter(names.SERVING_ROWS)
        self._served: dict[tuple[InService, LoadedModel], _Served] = {}
        self._turn: dict[_Served, list[_Waiting]] = {}
        self._workers: WeakKeyDictionary[LoadedModel, Worker[_Waiting, _Ran]] = WeakKeyDictionary()
        self._shadow = ShadowRunner(recorder.add, config.shadow_rows, metrics, schedule)

    def submit(self, asked: Asked) -> None:
        """Answer one request of N rows, and record it; `asked.done` gets the answer, or a RequestError if nothing was."""
        try:
            serving, model, role = self.repository.route(asked.model, asked.version, asked.key)
        except RequestError as error:
            asked.done(error)
            return
        served = self._served.get((serving, model)) or self._serve(asked.model, serving, model, role)
        try:
            for wanted in asked.wanted_outputs:  # before anything is recorded: what is refused was not predicted
                if wanted not in model.outputs:
                    raise RequestError("bad_input", f"unknown output {wanted[:100]!r}; the model has {sorted(model.outputs)}")
            inputs, num_rows = check_inputs(model.inputs, asked.inputs, self._config.max_rows)
            event_time_N = self._event_times(asked.parameters, num_rows)
        except RequestError as error:
            served.usage.num_failed += 1
            served.tally.num_failed += 1
            asked.done(error)
            return
        self.num_waiting += 1
        waiting = _Waiting(asked, inputs, num_rows, event_time_N)
        if self._soon is None:
            self._run(served, [waiting])
            return
        if not self._turn:
            self._soon(self._run_turn)
        self._turn.setdefault(served, []).append(waiting)

    def feedback(self, name: str, given: GivenLabels) -> Feedback:
        """Accept labels: see LabelDesk.accept."""
        return self._labels.accept(name, given)

    def enter_elsewhere(self, made: MadeElsewhere) -> list[str]:
        """Record what another server predicted: see ElsewhereDesk.enter."""
        return self._elsewhere.enter(made)

    def close(self) -> None:
        """Let the threads of shadow versions end; what waits for them is left out and counted."""
        self._shadow.close()

    # --- one turn -----------------------------------------------------------------------------------------------------------

    def _run_turn(self) -> None:
        turn, self._turn = self._turn, {}
        for served, waiting in turn.items():
            if self._is_slow(served.model):
                self._worker(served).add(waiting)
                continue
            for batch in self._batches(served.model, waiting):
                self._run(served, batch)

    def _batches(self, model: LoadedModel, waiting: list[_Waiting]) -> list[list[_Waiting]]:
        """Requests in order, joined up to `max_batch_rows` where the model answers rows one by one."""
        if len(waiting) == 1:
            return [waiting]
        if not model.measured.is_batchable:
            return [[one] for one in waiting]
        batches: list[list[_Waiting]] = [[]]
        num_rows = 0
        for one in waiting:
            if batches[-1] and num_rows + one.num_rows > self._config.max_batch_rows:
                batches.append([])
                num_rows = 0
            batches[-1].append(one)
            num_rows += one.num_rows
        return batches

    def _is_slow(self, model: LoadedModel) -> bool:
        return self._schedule is not None and model.measured.seconds_per_run > self._config.worker_threshold_seconds

    def _worker(self, served: _Served) -> Worker[_Waiting, _Ran]:
        worker = self._workers.get(served.model)
        if worker is None:
            assert self._schedule is not None, "worker threads need a loop to come back to"
            worker = self._workers[served.model] = Worker(
                lambda waiting: self._batches(served.model, waiting)[0],
                lambda batch: _ran(served.model, batch),
                lambda batch, ran: self._finish(served, batch, ran, perf_counter()),
                self._schedule,
            )
        return worker

    def _run(self, served: _Served, batch: list[_Waiting]) -> None:
        started = perf_counter()
        try:
            ran: _Ran | RequestError = _ran(served.model, batch)
        except RequestError as error:
            ran = error
        self._finish(served, batch, ran, started)

    def _finish(self, served: _Served, batch: list[_Waiting], ran: _Ran | RequestError, started: float) -> None:
        """Answer and record what ran; what failed together is tried one by one, so that it fails alone."""
        if isinstance(ran, RequestError):
            if len(batch) > 1 and self._is_slow(served.model):
                self._worker(served).add_alone(batch)
                return
            if len(batch) > 1:
                for one in batch:
                    self._run(served, [one])
                return
            self.num_waiting -= 1
            served.usage.num_failed += 1
            served.tally.num_failed += 1
            batch[0].asked.done(ran)
            return
        cpu_started_ns = thread_time_ns()
        self._answer(served, batch, ran, self._record(served, batch, ran))
        usage = served.usage
        usage.cpu_ns += ran.cpu_ns + thread_time_ns() - cpu_started_ns
        ended, latency_ns = perf_counter(), served.tally.latency_ns
        for one in batch:
            usage.queue_ns += int((started - one.asked.received_at) * 1e9)
            spent_ns = int((ended - one.asked.received_at) * 1e9)
            usage.total_ns += spent_ns
            latency_ns.append(spent_ns)

    def _record(self, served: _Served, batch: list[_Waiting], ran: _Ran) -> list[list[str]]:
        """Record the run's rows, and issue their receipts: one list for each head."""
        entry = self._ledger.enter(
            served.model,
            served.role,
            served.generation,
            ran.inputs,
            ran.heads,
            [(one.num_rows, one.event_time_N) for one in batch],
            [(one.asked.request_id, one.num_rows) for one in batch] if any(one.asked.request_id for one in batch) else (),
        )
        shadow = served.serving.shadow
        if shadow is not None and served.role == "champion":
            rows = entry.sequence_N, entry.event_time_N, ran.inputs
            self._shadow.offer(Shadowed(served.name, shadow, served.generation, *rows, served.shadow_tally))
        served.usage.last_ms = entry.now_ms
        return entry.receipts

    def _answer(self, served: _Served, batch: list[_Waiting], ran: _Ran, receipts: list[list[str]]) -> None:
        usage, live, name, version = served.usage, served.live, served.name, served.model.version
        num_rows = sum(one.num_rows for one in batch)
        self.num_waiting -= len(batch)
        usage.ran(num_rows, ran.compute_ns)
        usage.num_requests += len(batch)
        usage.num_rows += num_rows
        live.num_requests += len(batch)
        live.num_rows += num_rows
        served.count_rows(num_rows)
        further = [head.name for head, _, _ in ran.heads[1:]]
        start = 0
        for one in batch:
            end = start + one.num_rows
            outputs, of_heads = ran.outputs, receipts
            if len(batch) > 1:
                outputs = {output: value[start:end] for output, value in outputs.items()}
                of_heads = [tokens[start:end] for tokens in receipts]
            more = dict(zip(further, of_heads[1:], strict=True)) if further else {}
            one.asked.done(Answer(name, version, served.role, served.generation, outputs, of_heads[0], more))
            usage.num_bytes_in += one.asked.num_bytes
            start = end

    # --- small things -------------------------------------------------------------------------------------------------------

    def _serve(self, name: str, serving: InService, model: LoadedModel, role: Role) -> _Served:
        if len(self._served) > 4 * len(self.repository.names()) + 16:  # of deployments that are over
            self._served.clear()
        shadow = serving.shadow
        served = self._served[(serving, model)] = _Served(
            name,
            serving,
            model,
            role,
            self.usage.setdefault((name, model.version), Usage()),
            self._recorder.tally(name, model.version, role, serving.generation),
            self._recorder.tally(name, model.version if shadow is None else shadow.version, "shadow", serving.generation),
            self.live.of(name),
            self._rows.labels(name, model.version, role).inc,
        )
        return served

    def _event_times(self, parameters: Mapping[str, Any], num_rows: int) -> npt.NDArray[np.int64] | None:
        given = parameters.get("event_time_ms")
        if given is None or self._config.event_time == "server":
            return None
        values = given if isinstance(given, list) else [given] * num_rows
        is_fine = len(values) == num_rows and all(
            isinstance(value, int) and not isinstance(value, bool) and _EARLIEST_MS <= value <= LATEST_MS for value in values
        )
        if not is_fine:
            raise RequestError(
                "bad_input", f"event_time_ms must be milliseconds since 1970: one number, or a list of {num_rows}"
            )
        return np.array(values, np.int64)


def _joined(batch: list[_Waiting]) -> dict[str, Tensor]:
    first = batch[0].inputs
    if len(batch) == 1:
        return first
    return {name: np.concatenate([one.inputs[name] for one in batch]) for name in first}


def _ran(model: LoadedModel, batch: list[_Waiting]) -> _Ran:
    """One run of the session; in the loop's thread, or in the model's own.

    Raises:
        RequestError: A value that the model does not accept, or an answer that is none.
    """
    cpu_started_ns, inputs = thread_time_ns(), _joined(batch)
    check_values(model.inputs, inputs)
    started_ns = perf_counter_ns()
    outputs = model.infer(inputs)
    compute_ns = perf_counter_ns() - started_ns
    num_rows = sum(one.num_rows for one in batch)
    heads = [(head, *head.scores(outputs, num_rows)) for head in model.heads]
    return _Ran(inputs, outputs, heads, compute_ns, thread_time_ns() - cpu_started_ns)
