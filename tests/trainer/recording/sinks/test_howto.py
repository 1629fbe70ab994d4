import re
from pathlib import Path

PAGE = Path(__file__).parents[4] / "docs" / "howto" / "send-training-telemetry.md"


def test_the_code_of_the_howto_runs_and_gives_what_it_says():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    scope: dict = {}
    exec(compile(code, str(PAGE), "exec"), scope)
    assert [window.num_steps for window in scope["windows"]] == [50, 50, 20]
    assert sum(len(window.faults) for window in scope["windows"]) == 0
    assert list((scope["folder"] / "spool").iterdir()) == []
