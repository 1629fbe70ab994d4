import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "record-clipping-in-your-loop.md"


def test_the_code_of_the_howto_runs_and_gives_what_it_says():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    scope: dict = {}
    exec(compile(code, str(PAGE), "exec"), scope)
    assert [window.num_steps for window in scope["windows"]] == [50, 50, 20]
    assert sum(window.num_ineffective for window in scope["windows"]) == 0
    assert 0 <= scope["removed_mass_ratio"] < 1
