"""What is asked of the data plane and what it answers, whatever transport asked."""

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from clipdrift_contract.events import Role
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.tensors import Tensor


class Answer(NamedTuple):
    """What an inference returns."""

    model: str
    version: str
    role: Role
    generation: int
    outputs: dict[str, Tensor]
    receipts: list[str]  # of the main head, one a row
    more_receipts: Mapping[str, list[str]] = MappingProxyType({})  # of each further head of a multi-output model, by its name


Done: TypeAlias = Callable[[Answer | RequestError], None]


class Asked:
    """One inference request, on its way to an answer."""

    __slots__ = (
        "done", "inputs", "key", "model", "num_bytes", "parameters", "received_at", "request_id", "version", "wanted_outputs",
    )  # fmt: skip

    def __init__(
        self,
        model: str,
        inputs: dict[str, Tensor],
        done: Done,
        *,
        version: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        wanted_outputs: Sequence[str] = (),
        request_id: str = "",
        key: str = "",
        received_at: float | None = None,
        num_bytes: int = 0,
    ) -> None:
        self.model = model
        self.version = version  # None: as the deployment routes it
        self.inputs = inputs
        self.parameters = parameters or {}
        self.wanted_outputs = wanted_outputs
        self.request_id = request_id  # the caller's own; labels may come back under it
        self.key = key  # requests of one key are answered by the same version while a canary runs
        self.done = done  # called once, on the loop's thread; must not raise
        self.received_at = perf_counter() if received_at is None else received_at
        self.num_bytes = num_bytes  # of the request as it came, for the account
