"""The networks that users bring, small: each takes a category, a number that may be missing and a trace with gaps."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from clipdrift_contract.events import ClipSpec
from clipdrift_contract.profile import FeatureSpec
from clipdrift_trainer.export import build_onnx
from clipdrift_trainer.lineage import Lineage
from clipdrift_trainer.profiling import make_profile
from clipdrift_trainer.tasks.fitting import predict_logits, to_scores
from clipdrift_trainer.tasks.task import BaseTask, BuildContext, Rows, encode, vocabularies_of

STEPS, CHANNELS, WIDTH = 8, 3, 16
DAY = 86_400_000
Build = Callable[[int, int], nn.Module]


class Pump(BaseTask):
    """Rows of noise with a label that hangs on them."""

    features = (
        FeatureSpec(name="site", kind="categorical"),
        FeatureSpec(name="pressure", kind="numeric", nullable=True),
        FeatureSpec(name="trace", kind="sequence", shape=(STEPS, CHANNELS), nullable=True),
    )

    def __init__(self, build: Build, kind: str = "binary", num_classes: int = 2) -> None:
        self._build = build
        self.kind = kind
        self.classes = () if kind == "regression" else tuple(f"class {index}" for index in range(num_classes))

    def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
        rows = self.make(900)
        return rows.select((rows.time_ms >= start_ms) & (rows.time_ms < end_ms) & (rows.label_time_ms <= as_of_ms))

    def make(self, num_rows: int, seed: int = 0) -> Rows:
        generator = np.random.default_rng(seed)
        trace = generator.normal(size=(num_rows, STEPS, CHANNELS)).astype(np.float32)
        pressure = generator.normal(size=num_rows).astype(np.float32)
        score = pressure + trace[:, -3:].mean(axis=(1, 2)) * 3
        trace[generator.random((num_rows, STEPS)) < 0.2] = np.nan
        pressure[generator.random(num_rows) < 0.05] = np.nan
        label = score if self.kind == "regression" else np.digitize(score, np.linspace(-1, 1, len(self.classes) - 1))
        time_ms = np.arange(num_rows, dtype=np.int64) * (DAY // 50)
        site = generator.choice(np.array(["north", "süd", "east, 2"], object), num_rows)
        return Rows({"site": site, "pressure": pressure, "trace": trace}, label.astype(np.float64), time_ms, time_ms + 1)

    def build(self, context: BuildContext) -> nn.Module:
        num_outputs = 1 if self.kind == "regression" else len(self.classes)
        return self._build(len(context.vocabularies["site"]) + 1, num_outputs)


class Joined(nn.Module):
    """A body over the trace, joined with the number and the category's embedding, into one layer."""

    def __init__(self, num_sites: int, num_outputs: int, body: nn.Module, width: int = WIDTH) -> None:
        super().__init__()
        self.site = nn.Embedding(num_sites, 4)
        self.body = body
        self.head = nn.Linear(width + 4 + 2, num_outputs)

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.head(self.joined(features))

    def joined(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        pressure = features["pressure"][:, None]
        is_missing = torch.isnan(pressure).float()
        return torch.cat([self.body(features["trace"]), self.site(features["site"]), torch.nan_to_num(pressure), is_missing], 1)


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(STEPS * CHANNELS, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Dropout(0.3),
            nn.Linear(WIDTH, WIDTH),
        )  # fmt: skip

    def forward(self, trace: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.nan_to_num(trace))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], is_bidirectional: bool = False, num_layers: int = 1, width: int = WIDTH) -> None:
        super().__init__()
        width = width // 2 if is_bidirectional else width
        self.layers = kind(
            CHANNELS, width, num_layers, batch_first=True, bidirectional=is_bidirectional, dropout=0.1 * (num_layers > 1)
        )

    def forward(self, trace: torch.Tensor) -> torch.Tensor:
        state, last = self.layers(torch.nan_to_num(trace))
        hidden = last[0] if isinstance(last, tuple) else last
        both = torch.cat([hidden[-2], hidden[-1]], dim=1) if self.layers.bidirectional else hidden[-1]
        return both + state.mean(dim=1)


class Encoder(nn.Module):
    """torch's own transformer encoder; steps without data are masked."""

    def __init__(self, is_norm_first: bool = False, is_masked: bool = True) -> None:
        super().__init__()
        self.is_masked = is_masked
        self.into = nn.Linear(CHANNELS, WIDTH)
        self.place = nn.Parameter(torch.randn(STEPS, WIDTH) * 0.1)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 32, batch_first=True, norm_first=is_norm_first)
        self.layers = nn.TransformerEncoder(layer, 2)

    def forward(self, trace: torch.Tensor) -> torch.Tensor:
        is_gap = torch.isnan(trace).any(dim=2)
        is_masked = is_gap & ~is_gap.all(dim=1, keepdim=True)  # a row of gaps alone has nothing to attend to
        state = self.into(torch.nan_to_num(trace)) + self.place
        out = self.layers(state, src_key_padding_mask=is_masked if self.is_masked else None)
        weight = (~is_masked).float()[..., None]
        return (out * weight).sum(dim=1) / weight.sum(dim=1)


class Attention(nn.Module):
    """A block written by hand on torch's scaled dot-product attention."""

    def __init__(self, is_causal: bool = False) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.into = nn.Linear(CHANNELS, WIDTH)
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, trace: torch.Tensor) -> torch.Tensor:
        is_there = ~torch.isnan(trace).any(dim=2)
        is_there = is_there | ~is_there.any(dim=1, keepdim=True)
        state = self.into(torch.nan_to_num(trace))
        query, key, value = (part.unflatten(2, (4, -1)).transpose(1, 2) for part in self.query_key_value(state).chunk(3, dim=2))
        mask = None if self.is_causal else is_there[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=self.is_causal)
        return (state + self.out(mixed.transpose(1, 2).flatten(2))).mean(dim=1)


class Softmaxed(nn.Module):
    """Attention from matrix products alone."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(CHANNELS, WIDTH)
        self.query = nn.Parameter(torch.randn(WIDTH))

    def forward(self, trace: torch.Tensor) -> torch.Tensor:
        state = torch.tanh(self.into(torch.nan_to_num(trace)))
        score = (state @ self.query / math.sqrt(WIDTH)).masked_fill(torch.isnan(trace).all(dim=2), -1e4)
        return (torch.softmax(score, dim=1)[..., None] * state).sum(dim=1)


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(CHANNELS, WIDTH, 3, padding=1), nn.BatchNorm1d(WIDTH), nn.ReLU(),
            nn.Conv1d(WIDTH, WIDTH, 3, padding=2, dilation=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1),
        )  # fmt: skip

    def forward(self, trace: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.nan_to_num(trace).transpose(1, 2)).squeeze(2)


class Tied(nn.Module):
    """Weights that are used twice, and a write into a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(STEPS * CHANNELS, WIDTH)
        self.again = nn.Linear(WIDTH, WIDTH)
        self.once_more = nn.Linear(WIDTH, WIDTH)
        self.once_more.weight = self.again.weight

    def forward(self, trace: torch.Tensor) -> torch.Tensor:
        filled = torch.nan_to_num(trace).flatten(1).clone()
        filled[:, 0] += 1.0
        filled.mul_(0.5)
        return self.once_more(torch.relu(self.again(torch.relu(self.into(filled)))))


class Heads(Joined):
    """A trunk and a head of its own for each output."""

    def __init__(self, num_sites: int, num_outputs: int) -> None:
        super().__init__(num_sites, num_outputs, Perceptron())
        heads = (nn.Sequential(nn.Linear(WIDTH + 6, 4), nn.Tanh(), nn.Linear(4, 1)) for _ in range(num_outputs))
        self.heads = nn.ModuleList(heads)

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        trunk = self.joined(features)
        return torch.cat([head(trunk) for head in self.heads], dim=1)


class Categories(nn.Module):
    """No network but embeddings: of the category, and of the number's bin."""

    def __init__(self, num_sites: int, num_outputs: int) -> None:
        super().__init__()
        self.site = nn.Embedding(num_sites, num_outputs)
        self.bin = nn.Embedding(6, num_outputs)
        self.trace = nn.Linear(STEPS * CHANNELS, num_outputs)
        self.register_buffer("edges", torch.tensor([-1.0, -0.3, 0.3, 1.0]))

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        pressure = features["pressure"]
        is_missing = torch.isnan(pressure)
        index = (torch.nan_to_num(pressure)[:, None] >= self.edges).sum(dim=1)
        index = torch.where(is_missing, torch.full_like(index, 5), index)
        return self.site(features["site"]) + self.bin(index) + self.trace(torch.nan_to_num(features["trace"]).flatten(1))


class InDouble(Joined):
    """Calculates in float64 inside."""

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        given = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in features.items()}
        return super().forward(given)

    def joined(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        pressure = features["pressure"][:, None]
        parts = [self.body(features["trace"]), self.site(features["site"]), torch.nan_to_num(pressure)]
        return torch.cat([*parts, torch.isnan(pressure).double()], dim=1)


def joined(make_body: Callable[[], nn.Module]) -> Build:
    return lambda num_sites, num_outputs: Joined(num_sites, num_outputs, make_body())


ARCHITECTURES: dict[str, Build] = {
    "perceptron": joined(Perceptron),
    "gru": joined(lambda: Recurrent(nn.GRU)),
    "lstm": joined(lambda: Recurrent(nn.LSTM)),
    "two-layer lstm": joined(lambda: Recurrent(nn.LSTM, num_layers=2)),
    "bidirectional lstm": joined(lambda: Recurrent(nn.LSTM, is_bidirectional=True)),
    "bidirectional gru": joined(lambda: Recurrent(nn.GRU, is_bidirectional=True)),
    "transformer encoder": joined(Encoder),
    "transformer encoder, norm first": joined(lambda: Encoder(is_norm_first=True)),
    "transformer encoder, no mask": joined(lambda: Encoder(is_masked=False)),
    "attention by hand": joined(Attention),
    "causal attention by hand": joined(lambda: Attention(is_causal=True)),
    "attention of matrix products": joined(Softmaxed),
    "convolution": joined(Convolution),
    "tied weights": joined(Tied),
    "heads": Heads,
    "embeddings": Categories,
    "float64": lambda num_sites, num_outputs: InDouble(num_sites, num_outputs, Softmaxed()).double(),
}


LINEAGE = Lineage(
    run_id="v", model="pump", version="v", data_start_ms=0, data_end_ms=1, as_of_ms=1, data_digest="sha256:0",
    code_revision="abc", seed=0, arm="", clip=ClipSpec(),
)  # fmt: skip


class Kit:
    """A built (not fitted) module with everything that an export asks for."""

    def __init__(self, build: Build, kind: str = "binary", num_classes: int = 2) -> None:
        self.task = Pump(build, kind, num_classes)
        self.temperature = 1.0 if kind == "regression" else 1.7
        self.rows = self.task.make(300)
        self.words = vocabularies_of(self.task, self.rows)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.module = self.task.build(BuildContext(self.rows, self.words)).eval()

    def scores(self, rows: Rows) -> np.ndarray:
        return to_scores(predict_logits(self.module, encode(self.task, rows, self.words)), self.task.kind, self.temperature)

    def content(self) -> bytes:
        num_columns = 1 if self.task.kind == "regression" else len(self.task.classes)
        scores = np.full((len(self.rows), num_columns), 1 / num_columns)
        return build_onnx(
            self.task, self.module, self.rows, self.words,
            profile=make_profile(self.task, self.rows, scores, self.words), lineage=LINEAGE, temperature=self.temperature,
        )  # fmt: skip
