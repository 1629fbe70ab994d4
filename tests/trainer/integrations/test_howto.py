"""What the pages say runs, and gives what they say."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState, GradientState

HOWTO = Path(__file__).parents[3] / "docs" / "howto"
PLACES = ["in-your-loop", "in-lightning", "in-transformers", "with-accelerate", "in-several-processes"]


def blocks(place: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (HOWTO / f"record-clipping-{place}.md").read_text(), re.DOTALL)


def run(place: str, num_blocks: int = 1) -> dict[str, Any]:
    """Runs the page's first blocks, one after the other, as a reader would."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    for code in blocks(place)[:num_blocks]:
        exec(compile(code, place, "exec"), scope)
    return scope


def assert_sound(windows) -> None:
    assert sum(window.num_checked for window in windows) > 0
    assert [(window.num_ineffective, window.faults) for window in windows] == [(0, ())] * len(windows)


def test_the_loop_of_ones_own():
    scope = run("in-your-loop")
    assert [window.num_steps for window in scope["windows"]] == [50, 50, 20]
    assert 0 <= scope["removed_mass_ratio"] < 1
    assert_sound(scope["windows"])


def test_all_ways_of_the_loop_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    windows = run("in-your-loop", num_blocks=99)["windows"]
    # the loop; in the step; accumulated; scaled; compiled. The last two blocks take no step.
    assert [window.num_steps for window in windows] == [50, 50, 20, 10, 10, 10, 1]
    assert_sound(windows)


@pytest.mark.filterwarnings("ignore")
def test_lightning():
    windows = run("in-lightning")["windows"]
    assert [(window.model, window.num_steps) for window in windows] == [
        ("classifier", 50),
        ("classifier", 50),
        ("classifier", 20),
    ]
    assert_sound(windows)


def test_transformers():
    AcceleratorState._reset_state(reset_partial_state=True)
    scope = run("in-transformers")
    assert sum(window.num_steps for window in scope["windows"]) == 360
    assert sorted(path.parent.name for path in Path(scope["folder"]).glob("*/clipdrift-0.pt"))[0] == "checkpoint-100"
    assert_sound(scope["windows"])


def test_accelerate():
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    windows = run("with-accelerate")["windows"]
    assert [window.num_steps for window in windows] == [50, 10]
    assert_sound(windows)


@pytest.mark.system
@pytest.mark.slow
def test_several_processes(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(blocks("in-several-processes")[0])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (said,) = blocks("in-several-processes", "text")
    assert done.stdout == said
