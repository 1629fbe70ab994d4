"""The probe of a model in service: its module built again from the task, its file and the weights beside that."""

import msgspec
import numpy as np
from torch import nn

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import ClipSpec, GradProbe
from clipdrift_trainer.clipping.rules import RULES
from clipdrift_trainer.export import Artifact, score_rows
from clipdrift_trainer.lineage import data_digest
from clipdrift_trainer.probing.probe import ProbeConfig, probe_gradients
from clipdrift_trainer.tasks.fitting import predict_logits, to_scores
from clipdrift_trainer.tasks.split import hold_out_blocks
from clipdrift_trainer.tasks.task import BuildContext, Rows, Task, encode, load_as_of
from clipdrift_trainer.weights import WEIGHTS_NAME, load_weights

_CHECK_ROWS = 256
_SAME_SCORES = 0.01  # mean difference of scores: 8-bit weights differ by less, another normalisation by more


class ProbeError(ClipdriftError):
    """The model in service cannot be probed; the message says why."""


def probe_champion(
    task: Task,
    champion: Artifact,
    content: bytes,
    rows: Rows,
    clip: ClipSpec,
    *,
    at_ms: int,
    seed: int = 0,
    config: ProbeConfig | None = None,
) -> GradProbe:
    """What training would see today: the gradients of the model in service on rows that are newer than its training data.

    Args:
        task: The model's task, as it is now.
        champion: The model in service; its weights lie beside its file.
        content: Of that file.
        rows: Labelled rows; those from before the end of the model's own data are left out.
        clip: The rule in service.
        at_ms: Now, for the record.
        seed: Of the batches.
        config: How much is measured.

    Raises:
        ProbeError: The rule acts on samples, there are no weights, too few new rows, no row of its own any more, or the
            module built again does not answer like the model.
        WeightsError: The weights are not those of the model, or do not fit.
        LeakError, ValueError: The task gives rows that are not usable.
    """
    lineage = champion.lineage
    if clip.kind not in RULES:
        raise ProbeError(f"clipping by {clip.kind} acts on samples, and the probe measures batches")
    if not lineage.weights_digest:
        raise ProbeError(f"version {lineage.version} was trained before weights were kept; its successor can be probed")
    recent = rows.select(rows.time_ms >= lineage.data_end_ms)
    if len(recent) < task.batch_size:
        raise ProbeError(f"{len(recent)} rows are newer than the model's own data, a batch alone holds {task.batch_size}")
    own = load_as_of(task, lineage.data_start_ms, lineage.data_end_ms, lineage.as_of_ms)
    train, _ = hold_out_blocks(own.time_ms, every=lineage.hold_out_every, offset=lineage.hold_out_offset)
    if not len(train):
        raise ProbeError(f"the task gives none of the rows any more that version {lineage.version} was trained on")
    trained = own.select(train)
    vocabularies = vocabularies_in(champion)
    module = rebuild_module(task, champion, content, built_from=trained, checked_on=recent)
    probe = probe_gradients(
        task, module, recent=recent, trained=trained, vocabularies=vocabularies, clip=clip, model=lineage.model,
        version=lineage.version, at_ms=at_ms, seed=seed, config=config,
    )  # fmt: skip
    if data_digest(own) == lineage.data_digest:
        return probe
    return msgspec.structs.replace(probe, words=f"{probe.words}; its training data have changed since it was trained")


def vocabularies_in(artifact: Artifact) -> dict[str, tuple[str, ...]]:
    """The categories of each categorical feature that the model knows."""
    return {one.spec.name: one.categories for one in artifact.profile.features if one.spec.kind == "categorical"}


def rebuild_module(task: Task, artifact: Artifact, content: bytes, *, built_from: Rows, checked_on: Rows) -> nn.Module:
    """The module of an exported model, in evaluation mode: built by the task, with the weights that lie beside the file.

    Args:
        task: The model's task, as it is now.
        artifact: The model.
        content: Of its file.
        built_from: Given to the task's `build`; the weights replace what it keeps in parameters and buffers.
        checked_on: Rows on which the module must answer like the file.

    Raises:
        ProbeError: The module answers otherwise.
        WeightsError: There are no weights, they are not those of the model, or do not fit.
    """
    vocabularies = vocabularies_in(artifact)
    module = task.build(BuildContext(built_from, vocabularies))
    load_weights(module, artifact.path.parent / WEIGHTS_NAME, artifact.lineage.weights_digest)
    _require_same_answers(task, module, artifact, content, checked_on, vocabularies)
    return module


def _require_same_answers(
    task: Task,
    module: nn.Module,
    champion: Artifact,
    content: bytes,
    rows: Rows,
    vocabularies: dict[str, tuple[str, ...]],
) -> None:
    """What a task keeps outside parameters and buffers would come from other rows now; its answers would show it."""
    some = rows.select(np.arange(min(len(rows), _CHECK_ROWS)))
    module.eval()
    ours = to_scores(predict_logits(module, encode(task, some, vocabularies)), task.kind, champion.temperature)
    theirs = score_rows(content, [one.spec for one in champion.profile.features], some)
    difference = float(np.abs(ours - theirs).mean()) / max(1.0, float(np.abs(theirs).max()))
    if not difference <= _SAME_SCORES:
        raise ProbeError(
            f"the module that the task builds now answers otherwise than the model in service (by {difference:.2g} in the "
            "mean): the task has changed, or keeps something outside its parameters and buffers"
        )
