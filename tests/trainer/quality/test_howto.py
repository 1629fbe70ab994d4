import re
import tomllib
from pathlib import Path

from clipdrift_trainer.quality.checking import CHECKS
from clipdrift_trainer.quality.policy import QualityPolicy

PAGE = (Path(__file__).parents[3] / "docs" / "howto" / "check-training-data.md").read_text()


def test_the_code_of_the_howto_runs_and_gives_what_it_says() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    scope: dict = {}

    exec(compile(code, "check-training-data.md", "exec"), scope)

    found = scope["checks"]["single_feature"]
    assert f"# {found.outcome} {found.features}" in code


def test_the_howto_names_every_check_and_no_other() -> None:
    table = PAGE.partition("## What the checks look for")[2].partition("##")[0]

    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(CHECKS)


def test_the_settings_of_the_howto_are_settings() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)

    for name, value in tomllib.loads(text)["training"]["quality"].items():
        assert name in QualityPolicy.__struct_fields__
        if isinstance(value, dict):
            assert set(value) <= set(type(getattr(QualityPolicy(), name)).__struct_fields__)
