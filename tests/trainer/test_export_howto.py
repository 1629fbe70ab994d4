"""The page on exporting runs, and its table holds the words that the code says."""

import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "howto" / "export-a-model.md"
SOURCES = [ROOT / "trainer" / "clipdrift_trainer" / name for name in ("export.py", "soundness.py", "conversion.py")]


def test_the_code_of_the_howto_runs_and_gives_what_it_says():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    scope: dict = {"__name__": "howto"}
    exec(compile(code, str(PAGE), "exec"), scope)
    assert scope["answers"].shape == (200, 2)
    assert np.allclose(scope["answers"].sum(axis=1), 1.0, atol=1e-6)
    assert "tracing would freeze a decision" in scope["reason"]
    assert "Choose by torch.where instead of if" in scope["reason"]


def test_what_the_table_says_is_what_the_code_says():
    quoted = re.findall(r"\*([^*]+)\*", PAGE.read_text().partition("| the message says")[2].partition("\n\n")[0])
    said = " ".join(re.sub(r'"\s*f?"', "", path.read_text()).replace("\n", " ") for path in SOURCES)
    said = re.sub(r"\s+", " ", re.sub(r"\{[^}]*\}", "", said))
    assert len(quoted) == 10
    for words in quoted:
        for part in words.replace("[N, K]", "[N, ").split(" ... "):
            assert part in said, part
