"""What no file can stand for is refused, with the reason and what to do."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from architectures import Joined, Kit, Perceptron, Recurrent

from clipdrift_serving.dataplane.trial import check_graph
from clipdrift_trainer.export import score_rows
from clipdrift_trainer.export_error import ExportError


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


class Plain(Joined):
    def __init__(self, num_sites, num_outputs):
        super().__init__(num_sites, num_outputs, Perceptron())


class Remembering(Plain):
    last = 0.0

    def forward(self, features):
        answer = super().forward(features) + self.last
        self.last = answer.mean().detach()
        return answer


class CarryingState(Joined):
    def __init__(self, num_sites, num_outputs):
        super().__init__(num_sites, num_outputs, nn.Identity())
        self.cell, self.hidden = nn.LSTM(3, 16, batch_first=True), None

    def joined(self, features):
        trace = torch.nan_to_num(features["trace"])
        if self.hidden is not None and self.hidden[0].shape[1] != len(trace):
            self.hidden = None
        out, self.hidden = self.cell(trace, self.hidden)
        return torch.cat([out[:, -1], self.site(features["site"]), torch.zeros(len(out), 2)], dim=1)


class Counting(Plain):
    def __init__(self, num_sites, num_outputs):
        super().__init__(num_sites, num_outputs)
        self.register_buffer("num_calls", torch.zeros(1))

    def forward(self, features):
        self.num_calls += 1
        return super().forward(features)


class DroppingOut(Plain):
    def forward(self, features):
        return self.head(nn.functional.dropout(self.joined(features), 0.5, training=True))


class HidingALayer(Plain):
    """A layer in a plain list is not told of eval()."""

    def __init__(self, num_sites, num_outputs):
        super().__init__(num_sites, num_outputs)
        self.layers = [nn.Dropout(0.5)]

    def forward(self, features):
        return self.head(self.layers[0](self.joined(features)))


class CentredInTheBatch(Plain):
    def forward(self, features):
        answer = super().forward(features)
        return answer - answer.mean(dim=0)


class NormalisedByTheBatch(Plain):
    def __init__(self, num_sites, num_outputs):
        super().__init__(num_sites, num_outputs)
        self.norm = nn.BatchNorm1d(num_outputs, track_running_stats=False)

    def forward(self, features):
        return self.norm(super().forward(features))


class WritingIntoItsInput(Plain):
    def forward(self, features):
        features["pressure"].nan_to_num_().mul_(2.0)
        return super().forward(features)


class Twofold(Plain):
    def forward(self, features):
        return super().forward(features), features["pressure"]


class Named(Plain):
    def forward(self, features):
        return {"logits": super().forward(features)}


class TooWide(Plain):
    def __init__(self, num_sites, num_outputs):
        super().__init__(num_sites, num_outputs + 1)


class Whole(Plain):
    def forward(self, features):
        return super().forward(features).round().long()


class Gappy(Plain):
    def joined(self, features):
        given = dict(features)
        return super().joined(given) + features["pressure"][:, None]


class WithoutARowForUnknown(Plain):
    def __init__(self, num_sites, num_outputs):
        super().__init__(num_sites - 1, num_outputs)


SOUNDNESS = {
    Remembering: "keeps state between calls",
    CarryingState: "keeps state between calls",
    Counting: r"changes its own buffers .* in training only",
    DroppingOut: "dropout that does not know of eval",
    HidingALayer: "dropout that does not know of eval",
    CentredInTheBatch: "for a row alone than for the same row among others",
    NormalisedByTheBatch: "fails on a batch of 1|for a row alone",
    WritingIntoItsInput: r"writes into its inputs \['pressure'\]",
    Twofold: r"must give one tensor \[N, 2\] \(logits of 2 classes\), got tuple; join several heads",
    Named: "got dict",
    TooWide: r"must give numbers \[N, 2\] .* got torch.float32 \[64, 3\]",
    Whole: "got torch.int64",
    Gappy: r"NaN or infinity for \d of 64 rows; fill gaps",
    WithoutARowForUnknown: "IndexError: .* an embedding needs one row more than there are categories",
}


@pytest.mark.parametrize("build", SOUNDNESS, ids=lambda build: build.__name__)
def test_a_module_whose_answer_hangs_on_more_than_the_row_or_fails_is_refused(build):
    with pytest.raises(ExportError, match=SOUNDNESS[build]):
        Kit(build).content()


def test_a_scripted_module_is_refused():
    with pytest.raises(ExportError, match="a scripted module cannot be exported"):
        Kit(lambda *sizes: torch.jit.script(Plain(*sizes))).content()


@pytest.mark.slow
def test_a_compiled_module_is_exported_like_a_plain_one():
    kit = Kit(lambda *sizes: torch.compile(Plain(*sizes), backend="eager"))
    assert np.abs(score_rows(kit.content(), kit.task.features, kit.rows) - kit.scores(kit.rows)).max() <= 1e-5


def test_a_regression_gives_one_value_a_row():
    class Flat(Plain):
        def forward(self, features):
            return super().forward(features).squeeze(1)

    with pytest.raises(ExportError, match=r"must give numbers \[N, 1\] \(the value\), got torch.float32 \[64\]"):
        Kit(Flat, "regression").content()


class Branching(Plain):
    """Its branch falls the same way for every row that there is, and otherwise for a row that may come."""

    def forward(self, features):
        answer = super().forward(features)
        return answer * 2 if torch.nan_to_num(features["pressure"]).max() > 50.0 else answer


class Counted(Plain):
    """It takes the number of rows for a constant."""

    def forward(self, features):
        return super().forward(features) + torch.zeros(len(features["pressure"]), 1)


class Looped(Plain):
    """As many turns as the data say."""

    def forward(self, features):
        answer = super().forward(features)
        for _ in range(int(torch.nan_to_num(features["pressure"]).abs().max() / 100) + 1):
            answer = answer * 1.01
        return answer


class Detoured(Plain):
    """It leaves torch on the way."""

    def forward(self, features):
        return super().forward(features) + torch.from_numpy(np.nan_to_num(features["pressure"].numpy()))[:, None]


class InDoubleByErf(Plain):
    """ONNX Runtime has no error function for float64."""

    def forward(self, features):
        return nn.functional.gelu(super().forward(features).double())


class Spectral(Plain):
    def forward(self, features):
        return super().forward(features) + torch.linalg.eigvalsh(torch.nan_to_num(features["trace"][:, :3]))[:, :1]


def test_a_branch_that_real_rows_never_take_is_refused():
    kit = Kit(Branching)
    hot = kit.task.make(5)
    hot.features["pressure"][:] = 99.0
    assert np.abs(kit.scores(hot) - Kit(Plain).scores(hot)).max() > 0.01  # no row of the export would have told
    with pytest.raises(ExportError, match=r"trace: tracing would freeze a decision \(test_refusals.py, line \d+.*torch.where"):
        kit.content()


@pytest.mark.slow
@pytest.mark.parametrize("build", [Looped, Detoured, InDoubleByErf, Spectral], ids=lambda build: build.__name__)
def test_what_neither_exporter_can_write_down_is_refused_with_both_reasons(build):
    with pytest.raises(ExportError, match=r"cannot be exported faithfully\. Its trace: .+ Its code: .+ Choose by torch.where"):
        Kit(build).content()


class ByShape(Plain):
    """A decision that is the same for every row there can be: the length of the trace is fixed."""

    def forward(self, features):
        return super().forward(features) * (2.0 if features["trace"].shape[1] == 8 else 1.0) + self.offset(features["trace"])

    def offset(self, trace):
        if trace.shape[1] > 4:
            return torch.nan_to_num(trace[:, 4:5, 0])
        return torch.zeros(trace.shape[0], 1)


def test_a_decision_by_a_fixed_length_is_captured_where_it_cannot_be_traced():
    kit = Kit(ByShape)
    content = kit.content()
    for num_rows in (1, 2, 7, 128):
        rows = kit.task.make(num_rows, seed=3)
        assert np.abs(score_rows(content, kit.task.features, rows) - kit.scores(rows)).max() <= 1e-5
    check_graph(content)


def test_the_number_of_rows_taken_for_a_constant_is_refused_or_made_right():
    kit = Kit(Counted)
    try:
        content = kit.content()
    except ExportError as error:
        assert "freeze a decision" in str(error)  # noqa: PT017  either end is sound
    else:
        rows = kit.task.make(5, seed=3)
        assert np.abs(score_rows(content, kit.task.features, rows) - kit.scores(rows)).max() <= 1e-5


def test_a_recurrent_network_without_its_features_is_named():
    class Blind(Joined):
        def __init__(self, num_sites, num_outputs):
            super().__init__(num_sites, num_outputs, Recurrent(nn.GRU))

        def forward(self, features):
            return super().forward({**features, "trace": torch.zeros(features["pressure"].shape[0], 8, 3)})

    with pytest.raises(ExportError, match=r"never reads its features \['trace'\]"):
        Kit(Blind).content()
