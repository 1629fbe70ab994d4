import copy

import numpy as np
import pytest
import torch
from torch import nn
from toy_task import Toy

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rules import make_clipper
from clipdrift_trainer.probing.norms import BatchNorms, measure_batches
from clipdrift_trainer.tasks.task import BuildContext, encode, vocabularies_of

TASK = Toy()
ROWS = TASK.make(4)
VOCABULARIES = vocabularies_of(TASK, ROWS)


class Noisy(nn.Module):
    """The task's network with what differs between training and serving."""

    def __init__(self) -> None:
        super().__init__()
        self.net = TASK.build(BuildContext(ROWS, VOCABULARIES))
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(2)

    def forward(self, features):
        return self.norm(self.dropout(self.net(features)))


def built(seed=0):
    torch.manual_seed(seed)
    return TASK.build(BuildContext(ROWS, VOCABULARIES))


def measured(module, clip=None, num_batches=6, seed=3, rows=ROWS):
    clipper = make_clipper(clip or ClipSpec())
    return measure_batches(TASK, module, rows, VOCABULARIES, clipper, num_batches=num_batches, seed=seed)


def test_norms_are_those_of_the_batches_that_training_would_draw():
    module = built()
    tensors, label = encode(TASK, ROWS, VOCABULARIES), torch.from_numpy(ROWS.label).long()
    generator = np.random.default_rng(3)
    expected = []
    for _ in range(6):
        batch = torch.from_numpy(generator.integers(0, len(ROWS), TASK.batch_size))
        twin = copy.deepcopy(module)
        nn.functional.cross_entropy(twin({name: t[batch] for name, t in tensors.items()}), label[batch]).backward()
        expected.append(float(torch.nn.utils.get_total_norm([p.grad for p in twin.parameters() if p.grad is not None])))
    assert measured(module).before_S == pytest.approx(expected, rel=1e-5)


def test_the_rule_is_only_tried_on_the_gradients():
    module = built()
    free = measured(module)
    bound = float(np.median(free.before_S))
    clipped = measured(module, ClipSpec(kind="global_norm", max_norm=bound))
    assert clipped.before_S.tolist() == free.before_S.tolist()
    assert clipped.after_S == pytest.approx(np.minimum(free.before_S, bound), rel=1e-4)
    assert clipped.would_clip_ratio == 0.5
    removed = np.maximum(0, free.before_S - bound).sum() / free.before_S.sum()
    assert clipped.removed_mass_ratio == pytest.approx(removed, rel=1e-3)


def test_module_and_torchs_random_state_are_left_as_they_were():
    module = Noisy()
    module.train()
    module.net.eval()
    kept = torch.full_like(module.norm.weight, 7.0)
    module.norm.weight.grad = kept
    before, random_state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    measured(module)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), module.state_dict().values(), strict=True))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert (module.training, module.net.training, module.dropout.training) == (True, False, True)
    assert module.norm.weight.grad is kept
    assert module.net.site.weight.grad is None


def test_dropout_plays_no_part():
    module = Noisy()
    assert measured(module).before_S.tolist() == measured(module).before_S.tolist()
    without = copy.deepcopy(module)
    without.dropout.p = 0.0
    assert measured(module).before_S.tolist() == measured(without).before_S.tolist()


def test_the_module_is_left_as_it_was_even_when_it_fails():
    module = Noisy()
    module.train()
    module.norm = nn.Linear(99, 1)
    with pytest.raises(RuntimeError):
        measured(module)
    assert module.training
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_frozen_parameter_and_one_without_a_gradient_are_left_out():
    module = built()
    module.unused = nn.Parameter(torch.ones(3))
    module.site.weight.requires_grad_(False)
    assert np.isfinite(measured(module).before_S).all()


def test_a_batch_whose_gradient_is_not_finite_is_left_out():
    module = built()
    with torch.no_grad():
        module.layers[2].weight.fill_(float("nan"))
    norms = measured(module)
    assert (len(norms.before_S), norms.would_clip_ratio, norms.removed_mass_ratio, norms.quantile(0.5)) == (0, 0.0, 0.0, 0.0)


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no rows"):
        measured(built(), rows=ROWS.select(np.arange(0)))


def test_removed_mass_of_gradients_that_are_all_zero_is_zero():
    nothing = BatchNorms(np.zeros(3), np.zeros(3), np.zeros(3, bool))
    assert nothing.removed_mass_ratio == 0.0
