"""Which versions are in service. A swap replaces one reference, so a request is answered whole by the version it began with."""

import logging
import threading
from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal

from clipdrift_contract import metrics as names
from clipdrift_contract.events import Deployment, Role, ServedVersion
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.model import AdmissionPolicy, ArtifactError, Head, LoadedModel, Measured

_MAX_TRIED = 1_000
Swap = Literal["done", "stale", "refused"]
_log = logging.getLogger(__name__)


class InService:
    """What serves one model at a moment; immutable."""

    def __init__(
        self,
        generation: int,
        champion: LoadedModel,
        previous: LoadedModel | None,
        canary: LoadedModel | None = None,
        canary_weight: float = 0.0,
        shadow: LoadedModel | None = None,
    ) -> None:
        self.generation = generation
        self.champion = champion
        self.previous = previous
        self.canary = canary
        self.canary_weight = canary_weight
        self.shadow = shadow
        # of the canary's own bytes, so that each experiment draws its users anew, and every replica the same ones
        self._salt = b"" if canary is None else canary.served.digest[-16:].encode()

    def route(self, ticket: int, key: str = "") -> tuple[LoadedModel, Role]:
        """The version for a request: the canary gets its weight's share.

        Args:
            ticket: Running number of the request; without a key the share is spread evenly over them.
            key: Requests of one key stay with one version while the canary is the same; who was sent to the canary stays there
                when its weight grows.
        """
        if self.canary is None:
            return self.champion, "champion"
        if key:
            digest = blake2b(key.encode(errors="replace"), digest_size=8, salt=self._salt).digest()
            is_canary = int.from_bytes(digest, "little") < self.canary_weight * 2**64
        else:
            is_canary = int((ticket + 1) * self.canary_weight) > int(ticket * self.canary_weight)
        return (self.canary, "canary") if is_canary else (self.champion, "champion")

    def versions(self) -> list[LoadedModel]:
        return [model for model in (self.champion, self.canary, self.shadow) if model is not None]


class ModelRepository:
    """Every model in service. `apply` loads in the caller's thread; lookups never wait for it.

    Args:
        metrics: For swaps, generations and what is refused.
        admission: What a file must fulfil; None: nothing beyond its digest (tests).
    """

    def __init__(self, metrics: MetricSet, admission: AdmissionPolicy | None = None) -> None:
        self._admission = admission
        self._tried: dict[str, Measured] = {}  # by digest: the same bytes need no second trial
        self._models: dict[str, InService] = {}
        self._lock = threading.Lock()
        self._metrics = metrics
        self._wanted: dict[str, Deployment] = {}  # the newest that was announced, also when it was refused
        self._num_tickets = 0
        self._unloaded: set[str] = set()  # by an operator, who knows
        self._reasons: dict[str, str] = {}  # why the newest that was announced is not in service
        self.is_caught_up = False

    def apply(self, deployment: Deployment) -> Swap:
        """Bring a deployment into service unless a newer one is; a version that cannot be loaded leaves the old one serving."""
        name = deployment.model
        with self._lock:
            wanted = self._wanted.get(name)
            if wanted is None or deployment.generation > wanted.generation:
                self._wanted[name] = deployment
            now = self._models.get(name)
            if now is not None and deployment.generation <= now.generation:
                return self._count(name, "stale")
            try:
                self._models[name] = self._load(deployment, now)
            except ArtifactError as error:
                _log.error("generation %d of %s is refused: %s", deployment.generation, name, error)
                self._reasons[name] = str(error)
                self._metrics.gauge(names.SERVING_REFUSED).labels(name).set(self._wanted[name] is deployment)
                return self._count(name, "refused")
            self._unloaded.discard(name)
            self._reasons.pop(name, None)
            self._metrics.gauge(names.SERVING_REFUSED).labels(name).set(self._wanted[name].generation > deployment.generation)
        self._show(name, now, self._models[name])
        _log.info("%s serves version %s (generation %d)", name, deployment.champion.version, deployment.generation)
        return self._count(name, "done")

    def apply_newest(self, deployments: Sequence[Deployment]) -> None:
        """Bring the newest of one model's deployments into service; where it is refused, the newest that can be loaded."""
        for deployment in sorted(deployments, key=lambda one: one.generation, reverse=True):
            if self.apply(deployment) != "refused":
                return

    def load(self, name: str) -> Swap:
        """Try again what was announced last, after it was unloaded or refused; raises RequestError when nothing was."""
        wanted = self._wanted.get(name)
        if wanted is None:
            raise RequestError("unknown_model", f"no deployment of model {name[:100]!r} was announced")
        return self.apply(wanted)

    def get(self, name: str) -> InService:
        """What serves `name`.

        Raises:
            RequestError: There is no such model, or it was announced and is not in service.
        """
        found = self._models.get(name)
        if found is None and name in self._unloaded:
            raise RequestError("not_ready", f"model {name!r} was taken out of service; the admin call .../load brings it back")
        if found is None and name in self._wanted:
            reason = "it is being loaded, or its file was refused: the server's log says why"
            raise RequestError("not_ready", f"model {name!r} was announced but is not in service: {reason}")
        if found is None and not self.is_caught_up:
            raise RequestError("not_ready", f"model {name[:100]!r} may be among the deployments that are still being read")
        if found is None:
            raise RequestError(
                "unknown_model", f"unknown model {name[:100]!r}; served here: {sorted(self._models) or 'none yet'}"
            )
        return found

    def route(self, name: str, version: str | None, key: str = "") -> tuple[InService, LoadedModel, Role]:
        """Which version answers a request.

        Raises:
            RequestError: The model or the version is not in service.
        """
        serving = self.get(name)
        if version is None:
            self._num_tickets += 1
            return serving, *serving.route(self._num_tickets, key)
        for model in (*serving.versions(), serving.previous):
            if model is not None and model.version == version:
                return serving, model, "canary" if model is serving.canary else "champion"
        known = [model.version for model in serving.versions()]
        raise RequestError("unknown_model", f"model {name!r} has no version {version[:100]!r} in service; it has {known}")

    def head(self, name: str) -> Head:
        """What is watched under `name`: a model's main head, or a further one, which is named `<model>.<output>`.

        Raises:
            RequestError: There is no such model, or it has no such head.
        """
        model = name
        while model and model not in self._models:  # the longest name that serves: models' names may hold dots too
            model = model.rpartition(".")[0]
        heads = self.get(model or name).champion.heads
        for head in heads:
            if head.name == name:
                return head
        raise RequestError("unknown_model", f"model {model!r} watches no {name[:100]!r}; it has {[one.name for one in heads]}")

    def unavailable(self) -> dict[str, str]:
        """Models that were announced and are not in service, with the reason."""
        gone = dict.fromkeys(self._unloaded, "unloaded by an operator")
        waiting = {name: self._reasons.get(name, "loading") for name in self._wanted.keys() - self._models.keys()}
        return {**waiting, **gone}

    def names(self) -> Sequence[str]:
        return sorted(self._models)

    def is_ready(self) -> bool:
        """Whether each model that was announced so far is in service (by an older version, where the newest was refused)."""
        return self.is_caught_up and bool(self._wanted) and self._wanted.keys() <= self._models.keys() | self._unloaded

    def unload(self, name: str) -> None:
        """Take a model out of service until its next deployment; raises RequestError when it is not served."""
        self.get(name)
        with self._lock:
            self._models.pop(name, None)
            self._unloaded.add(name)

    def _load(self, deployment: Deployment, now: InService | None) -> InService:
        loaded = {} if now is None else {model.served: model for model in (*now.versions(), now.previous) if model is not None}

        def load(served: ServedVersion) -> LoadedModel:
            found = loaded.get(served)
            if found is None:
                found = LoadedModel(deployment.model, served, self._admission, self._tried.get(served.digest))
                if len(self._tried) >= _MAX_TRIED:
                    self._tried.clear()
                self._tried[served.digest] = found.measured
            return found

        champion = load(deployment.champion)
        canary = load(deployment.canary) if deployment.canary is not None else None
        shadow = load(deployment.shadow) if deployment.shadow is not None else None
        previous = None if now is None else now.previous if now.champion.served == deployment.champion else now.champion
        return InService(deployment.generation, champion, previous, canary, deployment.canary_weight, shadow)

    def _count(self, name: str, outcome: Swap) -> Swap:
        self._metrics.counter(names.SERVING_SWAPS).labels(name, outcome).inc()
        return outcome

    def _show(self, name: str, old: InService | None, new: InService) -> None:
        info = self._metrics.gauge(names.SERVING_MODEL_INFO)
        for serving, value in ((old, 0), (new, 1)):
            if serving is None:
                continue
            info.labels(name, serving.champion.version, "champion").set(value)
            if serving.canary is not None:
                info.labels(name, serving.canary.version, "canary").set(value)
        self._metrics.gauge(names.SERVING_GENERATION).labels(name).set(new.generation)
