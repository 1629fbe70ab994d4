"""Recording puts nothing into a compiled module, and nothing of it is traced."""

import shutil

import by_hand
import pytest
import torch
from torch._dynamo.utils import counters

from clipdrift_trainer import watch
from clipdrift_trainer.recording.slices import SliceMass

NAMES = ("a", "b")


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def train(module, model, batches, *, record, slices=None):
    """Trains the compiled `model` of `module`; with or without a recorder."""
    optimizer, windows, norms = by_hand.make_optimizer(module), [], []
    recorder = watch(model, optimizer, by_hand.MAX_NORM, sinks=windows.append, check_every=1, slices=slices) if record else None
    for batch in batches:
        optimizer.zero_grad()
        loss = by_hand.loss_of(model, batch)
        loss.backward()
        if recorder is None:
            norms.append(float(torch.nn.utils.clip_grad_norm_(module.parameters(), by_hand.MAX_NORM)))
        else:
            index = (batch[0][:, 0] > 0).long() if slices is not None else None
            norms.append(float(recorder.clip(loss, slice_index=index)))
        optimizer.step()
    if recorder is not None:
        recorder.finish()
    return norms, windows


def counted(*, record, backend="aot_eager"):
    torch._dynamo.reset()
    counters.clear()
    module = by_hand.make_module()
    norms, windows = train(
        module, torch.compile(module, fullgraph=True, backend=backend), by_hand.make_batches(), record=record
    )
    return module, norms, windows, {kind: dict(found) for kind, found in counters.items()}


def backends():
    compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
    return ["aot_eager", pytest.param("inductor", marks=[compiler, pytest.mark.slow])]


@pytest.mark.parametrize("backend", backends())
def test_recording_leaves_a_compiled_module_as_it_is(backend):
    plain, expected, _, without = counted(record=False, backend=backend)
    module, norms, windows, with_recorder = counted(record=True, backend=backend)
    assert with_recorder["stats"] == without["stats"]
    assert with_recorder["stats"]["unique_graphs"] == 1
    assert not with_recorder.get("graph_break")
    by_hand.assert_same_weights(module, plain)
    assert norms == pytest.approx(expected, rel=1e-6)
    by_hand.assert_tells(windows, expected)


def test_gradient_mass_of_slices_breaks_no_graph_and_is_the_same_compiled():
    def run(wrap):
        module = by_hand.make_module()
        slices = SliceMass(module[2], NAMES)
        _, (window,) = train(module, wrap(module), by_hand.make_batches(), record=True, slices=slices)
        return [(one.num_samples, round(one.grad_mass_sum, 3)) for one in window.slices]

    compiled = run(lambda module: torch.compile(module, fullgraph=True, backend="aot_eager"))
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1
    assert compiled == run(lambda module: module)


@pytest.mark.parametrize("at_step", [False, True])
def test_a_compiled_optimizer_step_is_compiled_once(at_step):
    module, reference, batches, windows = by_hand.make_module(), by_hand.make_module(), by_hand.make_batches(), []
    optimizer = by_hand.make_optimizer(module)
    recorder = watch(module, optimizer, by_hand.MAX_NORM, sinks=windows.append, check_every=1, at_step=at_step)
    step = torch.compile(optimizer.step, backend="aot_eager")
    num_graphs = []
    for batch in batches:
        optimizer.zero_grad()
        by_hand.loss_of(module, batch).backward()
        if not at_step:
            recorder.clip()
        step()
        num_graphs.append(counters["stats"]["unique_graphs"])
    recorder.finish()
    assert num_graphs[2] == num_graphs[-1], "compiled anew, step after step"
    norms = by_hand.train_by_hand(reference, batches)
    by_hand.assert_same_weights(module, reference, 1e-5)
    by_hand.assert_tells(windows, norms)


@pytest.mark.slow
def test_a_whole_compiled_step_leaves_the_graph_for_clipping_alone():
    module, reference, batches, windows = by_hand.make_module(), by_hand.make_module(), by_hand.make_batches(), []
    optimizer = by_hand.make_optimizer(module)
    recorder = watch(module, optimizer, by_hand.MAX_NORM, sinks=windows.append, check_every=1)

    @torch.compile(backend="aot_eager")
    def step(batch):
        loss = by_hand.loss_of(module, batch)
        loss.backward()
        recorder.clip(loss)
        optimizer.step()
        optimizer.zero_grad()

    num_graphs = []
    for batch in batches:
        step(batch)
        num_graphs.append(counters["stats"]["unique_graphs"])
    recorder.finish()
    assert num_graphs[2] == num_graphs[-1], "compiled anew, step after step"
    norms = by_hand.train_by_hand(reference, batches)
    by_hand.assert_same_weights(module, reference, 1e-5)
    by_hand.assert_tells(windows, norms)
