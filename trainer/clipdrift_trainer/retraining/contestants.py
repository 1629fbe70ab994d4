"""The candidate and the model in service as the gate takes them: rows that may judge, answers of the files, modules."""

from collections.abc import Sequence
from functools import lru_cache

import msgspec
import numpy as np
import numpy.typing as npt
from torch import nn

from clipdrift_contract.events import DataCheck
from clipdrift_trainer.evaluation.scores import Floats
from clipdrift_trainer.export import Artifact, score_rows
from clipdrift_trainer.probing.champion import rebuild_module, vocabularies_in
from clipdrift_trainer.profiling import slice_index, slice_names
from clipdrift_trainer.retraining.arms import FittedArm, Work
from clipdrift_trainer.retraining.checks.case import Case, Side
from clipdrift_trainer.retraining.freshness import label_horizon, may_judge
from clipdrift_trainer.retraining.judging import HeldOut, JudgingRows
from clipdrift_trainer.tasks.task import Rows
from clipdrift_trainer.training import Finished, split_held_out


def held_out_of(work: Work, champion: Artifact, content: bytes) -> HeldOut:
    """The held-out rows of `work`, those among them that may judge, and what the file in service answers to these."""
    rows = _judging(work)
    is_fresh = may_judge(
        rows, champion.lineage.data_end_ms, work.request.as_of_ms, label_horizon_ms=label_horizon(work.prepared.rows)
    )
    specs = [one.spec for one in champion.profile.features]
    return HeldOut(
        **msgspec.structs.asdict(judging_rows_of(work, champion)),
        is_fresh=is_fresh,
        champion_scores=score_rows(content, specs, rows.select(is_fresh)),
    )


def judging_rows_of(work: Work, champion: Artifact) -> JudgingRows:
    """The held-out rows of `work` that no temperature is fitted on."""
    task, rows = work.task, _judging(work)
    return JudgingRows(
        kind=task.kind,
        label=rows.label,
        time_ms=rows.time_ms,
        slice_index=slice_index(task, rows),
        slice_names=slice_names(task),
        label_span=champion.profile.label_high - champion.profile.label_low,
    )


def served_scores(work: Work, done: Finished) -> Floats:
    """What the exported file answers to the rows of `judging_rows_of`; with 8-bit weights not quite what the module does."""
    scores_NK: Floats = done.held_out_scores[_positions(work)]
    return scores_NK


def case_of(
    work: Work,
    candidate: FittedArm,
    done: Finished,
    held_out: HeldOut,
    champion: Artifact,
    content: bytes,
    data_checks: Sequence[DataCheck],
) -> Case:
    """All that the checks beside the loss need.

    Args:
        work: What the candidate was fitted on.
        candidate: With the answers of its file.
        done: Its export.
        held_out: The rows that judge.
        champion: The model in service.
        content: Of its file.
        data_checks: Of the training rows.
    """
    task, rows = work.task, work.prepared.rows
    trained, judged = rows.select(work.prepared.train), _judging(work).select(held_out.is_fresh)

    @lru_cache(maxsize=1)
    def champion_module() -> nn.Module:
        return rebuild_module(task, champion, content, built_from=trained, checked_on=judged)

    return Case(
        task=task,
        candidate=Side(
            content=done.artifact.path.read_bytes(),
            features=tuple(task.features),
            scores_NK=candidate.scores[held_out.is_fresh],
            module=lambda: candidate.fit.module.eval(),
            vocabularies=work.prepared.vocabularies,
        ),
        champion=Side(
            content=content,
            features=tuple(one.spec for one in champion.profile.features),
            scores_NK=held_out.champion_scores,
            module=champion_module,
            vocabularies=vocabularies_in(champion),
        ),
        judged=judged,
        trained=trained,
        held_out=rows.select(work.prepared.held_out),
        temperature=done.artifact.temperature,
        label_span=held_out.label_span,
        data_checks=data_checks,
    )


def _judging(work: Work) -> Rows:
    return work.prepared.rows.select(work.prepared.held_out).select(_positions(work))


def _positions(work: Work) -> npt.NDArray[np.int64]:
    _, judging = split_held_out(work.task, work.training, work.prepared.rows.select(work.prepared.held_out))
    return judging
