"""Predictions of a model that is served elsewhere, entered as if they had been made here.

The same version must be announced here by a deployment: its profile says what the inputs and the answers mean.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from clipdrift_contract.clock import LATEST_MS
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.ledger import Ledger
from clipdrift_serving.dataplane.repository import ModelRepository
from clipdrift_serving.dataplane.tensors import BYTES, DTYPES, InputSpec, Tensor, check_inputs, check_values


class MadeElsewhere(NamedTuple):
    """One request and its answer, as somebody else's server logged them."""

    model: str
    version: str  # "": not known, so it is the champion's
    request_id: str
    event_time_ms: int | None
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


class ElsewhereDesk:
    """Enters what was predicted elsewhere. One thread (the event loop's) only."""

    def __init__(self, repository: ModelRepository, ledger: Ledger, max_rows: int) -> None:
        self._repository = repository
        self._ledger = ledger
        self._max_rows = max_rows

    def enter(self, made: MadeElsewhere) -> list[str]:
        """Record the rows; returns their receipts. Labels may come by them, or by the request's id.

        Raises:
            RequestError: The model is not announced here, or the tensors are not its own.
        """
        serving = self._repository.get(made.model)
        model = next((one for one in serving.versions() if one.version == made.version), serving.champion)
        given = {name: _as_declared(model.inputs[name], tensor) for name, tensor in made.inputs.items() if name in model.inputs}
        inputs, num_rows = check_inputs(model.inputs, given, self._max_rows)
        check_values(model.inputs, inputs)
        outputs = dict(made.outputs)
        if len(outputs) == 1:  # the V1 protocol names no output
            outputs = {model.heads[0].output: next(iter(outputs.values()))}
        try:
            scored = [(head, *head.scores(outputs, num_rows)) for head in model.heads if head.output in outputs]
        except (ValueError, TypeError) as error:
            raise RequestError("bad_input", f"the outputs are not those of {made.model!r}: {error}") from error
        if not scored:
            raise RequestError("bad_input", f"the answer must hold {model.heads[0].output!r}, got {sorted(outputs)[:10]}")
        times_N = None
        if made.event_time_ms is not None:
            if not 0 <= made.event_time_ms <= LATEST_MS:
                raise RequestError("bad_input", f"the event's time must lie in 1970 to 2100, got {made.event_time_ms} ms")
            times_N = np.full(num_rows, made.event_time_ms, np.int64)
        entry = self._ledger.enter(
            model, "champion", serving.generation, inputs, scored, [(num_rows, times_N)], [(made.request_id, num_rows)]
        )
        return entry.receipts[0]


def _as_declared(spec: InputSpec, tensor: Tensor) -> Tensor:
    """JSON of the V1 protocol says no types: whole numbers may be meant as floats, and floats have 64 bits."""
    if spec.datatype == BYTES or tensor.dtype.kind not in "biuf":
        return tensor
    wanted = np.dtype(DTYPES[spec.datatype])
    return tensor.astype(wanted) if np.can_cast(tensor.dtype, wanted, "same_kind") or wanted.kind == "f" else tensor
