import numpy as np
import pytest
import torch
from toy_task import DAY, Toy

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.recording import per_sample_norms
from clipdrift_trainer.tasks.fitting import fit, predict_logits, to_scores
from clipdrift_trainer.tasks.split import hold_out_blocks
from clipdrift_trainer.tasks.task import encode, vocabularies_of

CLIP = ClipSpec(kind="global_norm", max_norm=0.3)


def fitted(seed=0, clip=CLIP, num_steps=Toy.num_steps, **more):
    task = Toy()
    task.num_steps = num_steps
    rows = task.make(5)
    return fit(task, rows, vocabularies_of(task, rows), clip, seed, clock=ManualClock(), **more)


def weights(found):
    return torch.cat([parameter.detach().flatten() for parameter in found.module.parameters()])


def test_the_same_seed_gives_the_same_weights_bit_for_bit():
    assert torch.equal(weights(fitted()), weights(fitted()))


def test_another_seed_gives_other_weights():
    assert not torch.equal(weights(fitted(0)), weights(fitted(1)))


def test_torchs_global_random_state_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    fitted()
    assert torch.equal(before, torch.get_rng_state())


def test_figures_are_those_of_the_windows():
    windows, progress = [], []
    found = fitted(on_window=windows.append, on_progress=lambda done, of: progress.append((done, of)))
    assert progress == [(50, 60), (60, 60)]
    removed, mass = sum(w.norm_removed_sum for w in windows), sum(w.norm_sum for w in windows)
    assert found.removed_mass_ratio == pytest.approx(removed / mass)
    assert 0 < found.removed_mass_ratio < 1
    assert found.clip_rate_ratio == pytest.approx(sum(w.num_clipped for w in windows) / 60)
    assert (found.total.num_checked, found.total.num_ineffective) == (6, 0)


def test_without_clipping_nothing_is_removed():
    found = fitted(clip=ClipSpec(kind="off"))
    assert (found.removed_mass_ratio, found.clip_rate_ratio) == (0.0, 0.0)


def test_it_learns():
    task = Toy()
    rows = task.make(8)
    found = fit(task, rows, vocabularies_of(task, rows), ClipSpec(kind="off"), 0, clock=ManualClock())
    scores = to_scores(predict_logits(found.module, encode(task, rows, vocabularies_of(task, rows))), "binary")
    assert (scores.argmax(axis=1) == rows.label).mean() > 0.7


def test_no_rows_are_refused():
    task = Toy()
    rows = task.make(1)
    with pytest.raises(ValueError, match="no rows"):
        fit(task, rows.select(np.zeros(0, int)), vocabularies_of(task, rows), CLIP, 0)


def test_scores_are_probabilities_even_for_huge_logits_and_a_temperature_flattens_them():
    logits = np.array([[1000.0, 0.0], [0.0, 2.0]], np.float32)
    scores = to_scores(logits, "binary")
    assert np.allclose(scores.sum(axis=1), 1)
    assert scores[0, 0] == 1.0
    assert to_scores(logits, "binary", temperature=4.0)[1, 1] == pytest.approx(1 / (1 + np.exp(-0.5)))


def test_whole_days_are_held_out_and_no_row_is_in_both_parts():
    time_ms = Toy().make(12).time_ms
    train, held_out = hold_out_blocks(time_ms)
    assert set(time_ms[held_out] // DAY) == {4, 9}
    assert sorted([*train, *held_out]) == list(range(len(time_ms)))


PER_SAMPLE = ClipSpec(kind="per_sample", max_norm=0.5)


def test_per_sample_clipping_tells_of_samples_and_gives_back_a_plain_module():
    windows = []
    found = fitted(clip=PER_SAMPLE, num_steps=12, on_window=windows.append)
    assert 0 < found.removed_mass_ratio < 1
    assert found.privacy is None
    assert not any(window.faults for window in windows)
    assert {(one.slice, one.kind) for one in found.total.slices} >= {("north", "exact"), ("south", "exact")}
    assert sum(one.num_samples for one in found.total.slices) == 12 * Toy.batch_size
    assert found.norm_quantiles.p10 < found.norm_quantiles.p90
    assert not any(hasattr(parameter, "grad_sample") for parameter in found.module.parameters())


def test_per_sample_clipping_is_deterministic_and_leaves_torchs_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert torch.equal(weights(fitted(clip=PER_SAMPLE, num_steps=8)), weights(fitted(clip=PER_SAMPLE, num_steps=8)))
    assert torch.equal(before, torch.get_rng_state())


def test_a_bound_out_of_reach_trains_as_without_clipping():
    loose = fitted(clip=ClipSpec(kind="per_sample", max_norm=1e6), num_steps=12)
    torch.testing.assert_close(weights(loose), weights(fitted(clip=ClipSpec(kind="off"), num_steps=12)), rtol=1e-3, atol=1e-5)
    assert (loose.removed_mass_ratio, loose.clip_rate_ratio) == (pytest.approx(0.0, abs=1e-6), 0.0)


def test_a_private_fit_says_what_it_spent():
    clip = ClipSpec(kind="per_sample", max_norm=0.5, options={"noise_multiplier": 1.0, "accountant": "rdp", "delta": 1e-4})
    found = fitted(clip=clip, num_steps=10)
    assert (found.privacy.num_steps, found.privacy.noise_multiplier) == (10, 1.0)
    assert found.privacy.sample_rate == pytest.approx(64 / 300)
    assert found.privacy.epsilon > 1
    assert not torch.equal(weights(found), weights(fitted(clip=clip, num_steps=10)))  # its randomness is secret


def test_exact_norms_on_some_steps_change_nothing_and_tell_of_their_samples():
    sampled = fitted(num_steps=12, exact_norms_every=5)  # steps 0, 5 and 10
    assert torch.equal(weights(sampled), weights(fitted(num_steps=12)))
    assert {one.kind for one in sampled.exact_slices} == {"exact"}
    assert sum(one.num_samples for one in sampled.exact_slices) == 3 * Toy.batch_size
    assert {one.kind for one in sampled.total.slices} == {"head"}
    assert not sampled.total.faults
    by_head = {one.slice: one.grad_mass_sum / one.num_samples for one in sampled.total.slices if one.num_samples}
    exact = {one.slice: one.grad_mass_sum / one.num_samples for one in sampled.exact_slices if one.num_samples}
    assert all(0.2 * exact[name] < by_head[name] < exact[name] for name in exact)  # a part of the whole


class Normalised(Toy):
    def build(self, context):
        module = super().build(context)
        module.register_module("normal", torch.nn.BatchNorm1d(2))
        return module


@pytest.mark.parametrize("cause", ["batch normalisation", "a loss that fails"])
def test_exact_norms_that_cannot_be_measured_are_left_out_once_and_the_training_goes_on(cause, caplog, monkeypatch):
    task = Toy() if cause == "a loss that fails" else Normalised()
    task.num_steps = 12
    rows = task.make(3)
    plain = fit(task, rows, vocabularies_of(task, rows), CLIP, 0, clock=ManualClock())
    if cause == "a loss that fails":

        def fail(*_, **__):
            raise RuntimeError("a loss that fails")

        monkeypatch.setattr(per_sample_norms, "per_sample_norms", fail)
    found = fit(task, rows, vocabularies_of(task, rows), CLIP, 0, clock=ManualClock(), exact_norms_every=2)
    assert torch.equal(weights(found), weights(plain))
    assert found.exact_slices == ()
    assert [record.message for record in caplog.records if "exact gradient norms" in record.message] == [caplog.messages[-1]]
    assert cause in caplog.text
