import msgspec
import numpy as np
import pytest
import torch
from toy_task import DAY, Toy

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.events import ClipSpec, GradWindow
from clipdrift_trainer.probing.probe import ProbeConfig, median_norm, probe_gradients, with_seen
from clipdrift_trainer.recording.window import norm_histogram
from clipdrift_trainer.tasks.fitting import fit
from clipdrift_trainer.tasks.task import Rows, vocabularies_of

CLIP = ClipSpec(kind="global_norm", max_norm=0.1)
TASK = Toy(turn_day=20)
ALL = TASK.make(30)
TRAINED = ALL.select(ALL.time_ms < 20 * DAY)
RECENT = ALL.select(ALL.time_ms >= 20 * DAY)
VOCABULARIES = vocabularies_of(TASK, TRAINED)


@pytest.fixture(scope="module")
def module():
    return fit(TASK, TRAINED, VOCABULARIES, CLIP, seed=0, clock=ManualClock()).module


def probed(module, recent=RECENT, clip=CLIP, **changes):
    asked = {
        "trained": TRAINED,
        "vocabularies": VOCABULARIES,
        "clip": clip,
        "model": "pump",
        "version": "1",
        "at_ms": 5,
        **changes,
    }
    return probe_gradients(TASK, module, recent=recent, **asked)


def by_slice(probed_slices):
    return {one.slice: one for one in probed_slices}


def test_a_world_that_turned_shows_larger_gradients_in_every_slice(module):
    probe = probed(module)
    recent, trained = by_slice(probe.recent), by_slice(probe.trained)
    assert set(recent) == set(trained) == {"", "north", "south"}
    for name in recent:
        assert recent[name].norm_p50 > 1.5 * trained[name].norm_p50
        assert recent[name].removed_mass_ratio > trained[name].removed_mass_ratio
        assert recent[name].norm_p10 <= recent[name].norm_p50 <= recent[name].norm_p90
    assert (probe.max_norm, probe.batch_size, probe.recent[0].num_rows) == (pytest.approx(0.1), 64, len(RECENT))
    assert "times that on its own training data" in probe.words


def test_rows_like_those_of_training_show_the_same(module):
    probe = probed(module, recent=TASK.make(20))
    assert probe.recent[0].norm_p50 == pytest.approx(probe.trained[0].norm_p50, rel=0.15)


def test_the_same_seed_gives_the_same_probe(module):
    assert probed(module) == probed(module)
    assert probed(module, seed=1) != probed(module)


@pytest.mark.parametrize(
    "clip", [ClipSpec(), ClipSpec(kind="value", max_norm=0.01), ClipSpec(kind="autoclip"), ClipSpec(kind="zclip"),
             ClipSpec(kind="adagc"), ClipSpec(kind="agc"), ClipSpec(kind="quantile")], ids=lambda clip: clip.kind,
)  # fmt: skip
def test_every_rule_can_be_tried(module, clip):
    probe = probed(module, clip=clip, config=ProbeConfig(num_batches=8, num_slice_batches=2))
    for one in (*probe.recent, *probe.trained):
        assert 0.0 <= one.removed_mass_ratio < 1.0
        assert (one.would_clip_ratio == 0.0) == (one.removed_mass_ratio == 0.0)
    msgspec.json.decode(msgspec.json.encode(probe))


def test_autoclip_compares_recent_batches_with_a_bound_learned_on_its_own_data(module):
    probe = probed(module, clip=ClipSpec(kind="autoclip", percentile=50.0), config=ProbeConfig(num_batches=40))
    assert probe.trained[0].would_clip_ratio < 0.7
    assert probe.recent[0].would_clip_ratio > 0.9


def test_a_rule_that_needs_the_module_is_refused(module):
    with pytest.raises(ValueError, match="needs the module"):
        probed(module, clip=ClipSpec(kind="per_sample", max_norm=1.0))


def test_a_slice_with_few_rows_is_left_out(module):
    is_rare = (RECENT.features["site"] == "south") & (np.arange(len(RECENT)) > 40)
    probe = probed(module, recent=RECENT.select(~is_rare))
    assert set(by_slice(probe.recent)) == {"", "north"}


def test_only_the_most_frequent_slices_are_measured(module):
    probe = probed(module, config=ProbeConfig(most_slices=1, num_batches=2))
    assert len(probe.recent) == len(probe.trained) == 2


def test_a_setting_below_one_is_refused():
    with pytest.raises(ValueError, match="num_batches must be >= 1, got 0"):
        ProbeConfig(num_batches=0)


def window(step_first, norms, num_clipped=0, removed=0.0, num_nonfinite=0):
    norm_S = np.array(norms)
    return GradWindow(
        run_id="r", model="m", started_at_ms=0, ended_at_ms=0, step_first=step_first, num_steps=len(norms) + num_nonfinite,
        num_clipped=num_clipped, num_nonfinite=num_nonfinite, norm_sum=float(norm_S.sum()), norm_removed_sum=removed,
        norm_histogram=norm_histogram(norm_S) if len(norms) else {},
    )  # fmt: skip


def test_what_was_seen_is_of_the_first_steps_alone(module):
    windows = [window(0, [1.0, 2.0, 3.0], 2, 1.5, num_nonfinite=1), window(50, [4.0], 1, 3.5), window(100, [999.0], 1, 998.0)]
    seen = with_seen(probed(module), windows)
    assert seen.seen_would_clip_ratio == 0.75
    assert seen.seen_removed_mass_ratio == pytest.approx(0.5)
    assert seen.seen_norm_p50 == pytest.approx(2.4, rel=0.1)


@pytest.mark.parametrize("windows", [[], [window(0, [], num_nonfinite=3)], [window(0, [0.0, 0.0])], [window(200, [1.0])]])
def test_nothing_was_seen_where_no_first_step_had_a_gradient(module, windows):
    probe = probed(module, config=ProbeConfig(num_batches=2, num_slice_batches=1))
    assert with_seen(probe, windows) == probe


def test_the_median_of_a_histogram_is_right_to_a_bucket():
    norms = np.random.default_rng(0).lognormal(size=5_000)
    halves = [window(0, norms[:3_000].tolist()), window(50, norms[3_000:].tolist())]
    assert median_norm(halves) == pytest.approx(np.median(norms), rel=0.05)
    assert median_norm([]) == 0.0


def test_a_task_without_slices_is_probed_as_a_whole(module):
    class Plain(Toy):
        slices = None

    rows = Rows(RECENT.features, RECENT.label, RECENT.time_ms, RECENT.label_time_ms)
    probe = probe_gradients(Plain(), module, recent=rows, trained=TRAINED, vocabularies=VOCABULARIES, clip=CLIP)
    assert [one.slice for one in probe.recent] == [""]


def test_the_probe_leaves_weights_and_mode_alone(module):
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    probed(module)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not module.training
