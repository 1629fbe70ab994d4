"""The same origin has the same name, another origin another one."""

import subprocess
from pathlib import Path

import numpy as np
import torch
from torch import nn
from toy_task import Toy

from clipdrift_trainer.lineage import code_revision, data_digest, version_name, weights_digest
from clipdrift_trainer.tasks.task import Rows


def test_equal_rows_have_equal_digests_however_their_words_are_stored() -> None:
    rows = Toy().make(2)
    same = Rows(
        {**rows.features, "site": np.array([str(word) for word in rows.features["site"]], object)},
        rows.label.copy(), rows.time_ms.copy(), rows.label_time_ms.copy(),
    )  # fmt: skip

    assert data_digest(rows) == data_digest(same)


def test_one_changed_value_label_time_name_or_order_changes_the_digest() -> None:
    rows = Toy().make(2)

    def changed(column: str) -> Rows:
        features = {name: values.copy() for name, values in rows.features.items()}
        columns = {name: getattr(rows, name).copy() for name in ("label", "time_ms", "label_time_ms")}
        if column in columns:
            columns[column][0] += 1
        elif column == "site":
            features["site"][0] = "elsewhere"
        else:
            features[column].flat[0] += 1
        return Rows(features, *columns.values())

    digests = [data_digest(changed(name)) for name in ("site", "pressure", "trace", "label", "time_ms", "label_time_ms")]
    digests += [data_digest(rows), data_digest(rows.select(np.arange(len(rows))[::-1]))]
    renamed = {("p" if name == "pressure" else name): values for name, values in rows.features.items()}
    digests.append(data_digest(Rows(renamed, rows.label, rows.time_ms, rows.label_time_ms)))
    assert len(set(digests)) == len(digests)


def test_words_that_run_together_differ() -> None:
    def words(*names: str) -> Rows:
        count = len(names)
        zeros = np.zeros(count, np.int64)
        return Rows({"word": np.array(names, object)}, np.zeros(count), zeros, zeros)

    assert data_digest(words("ab", "c")) != data_digest(words("a", "bc"))


def test_weights_digest_sees_parameters_buffers_and_names() -> None:
    def module(weight: float = 1.0, mean: float = 0.0) -> nn.Module:
        layer = nn.Linear(1, 1)
        with torch.no_grad():
            layer.weight.fill_(weight)
            layer.bias.zero_()
        layer.register_buffer("mean", torch.tensor(mean))
        layer.register_buffer("empty", torch.zeros(0))
        layer.register_buffer("count", torch.tensor(3))
        return layer

    digests = {weights_digest(module()), weights_digest(module(weight=2.0)), weights_digest(module(mean=1.0))}
    assert len(digests) == 3
    assert weights_digest(module()) == weights_digest(module())


def test_a_version_begins_with_the_day_as_of_which_it_knows() -> None:
    assert version_name(1_362_096_000_000, "a").startswith("20130301-")
    assert version_name(0, "a", "b") != version_name(0, "ab", "")


def test_the_code_revision_is_gits_and_says_when_files_differ(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    assert code_revision(tmp_path) == "unknown"
    git("init", "-q")
    (tmp_path / "task.py").write_text("1")
    git("add", ".")
    git("commit", "-qm", "x")
    clean = code_revision(tmp_path)
    (tmp_path / "task.py").write_text("2")

    assert len(clean) == 12
    assert code_revision(tmp_path) == clean + "+changed"
