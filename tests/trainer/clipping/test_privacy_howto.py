import re
import tomllib
from pathlib import Path

import msgspec
import torch

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.per_sample import PerSampleOptions

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "train-with-privacy.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_code_of_the_howto_runs_and_spends_what_it_allows():
    (code,) = blocks("python")
    scope: dict = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(code, str(PAGE), "exec"), scope)
    assert scope["budget"].num_steps == 100
    assert 1 < scope["budget"].epsilon <= 8.0
    assert 0 < scope["removed_mass_ratio"] < 1
    assert not any(window.faults for window in scope["windows"])


def test_the_settings_of_the_howto_are_settings():
    (settings,) = blocks("toml")
    clip = msgspec.convert(tomllib.loads(settings)["models"]["pump"]["clip"], ClipSpec)
    assert msgspec.convert(clip.options, PerSampleOptions).max_epsilon == 8.0


def test_every_option_has_a_row_and_every_row_is_an_option():
    named = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert named == [field.name for field in msgspec.structs.fields(PerSampleOptions)]
