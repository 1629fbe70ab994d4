"""A table of the file becomes its owner's struct, or an error that names file, section and key."""

from pathlib import Path
from typing import Literal

import msgspec
import pytest

from clipdrift_contract.errors import ConfigError
from clipdrift_deploy.settings import read_section

FILE = Path("/p/clipdrift.toml")


class Inner(msgspec.Struct, frozen=True, kw_only=True):
    level: int = 1


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    folder: Path = Path("here")
    colour: Literal["red", "blue"] = "red"
    seeds: tuple[int, ...] = (0,)
    inner: Inner = Inner()
    token: str = ""

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise ValueError("section.name must not be bad, got 'bad'")


def test_given_settings_are_taken_the_others_keep_their_default_and_what_is_filled_is_filled() -> None:
    table = {"name": "x", "folder": "there", "seeds": [1, 2], "inner": {"level": 3}}

    assert read_section(FILE, "section", table, Owner, {"token": "t"}) == Owner(
        name="x", folder=Path("there"), seeds=(1, 2), inner=Inner(level=3), token="t"
    )


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"name": "x", "nmae": 1}, "/p/clipdrift.toml: [section] nmae is no setting; did you mean name?"),
        ({"name": "x", "zzz": 1}, "[section] zzz is no setting; there are: colour, folder, inner, name, seeds"),
        ({"name": "x", "token": "mine"}, "[section] token is filled by Clipdrift and cannot be set here; remove it"),
        ({}, "/p/clipdrift.toml: [section] needs name"),
        ({"name": 5}, "[section] name: expected `str`, got 5"),
        ({"name": "x", "folder": 5}, "[section] folder: expected `str`, got 5"),
        ({"name": "x", "colour": "green"}, "[section] colour: expected one of red, blue, got 'green'"),
        ({"name": "x", "seeds": [1, "b"]}, "[section] seeds: at [1] expected `int`, got [1, 'b']"),
        ({"name": "x", "inner": {"levle": 1}}, "[section.inner] levle is no setting; did you mean level?"),
        ({"name": "x", "inner": 5}, "[section] inner: expected a table, got 5"),
        ({"name": "bad"}, "/p/clipdrift.toml: [section] name must not be bad, got 'bad'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(table: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_section(FILE, "section", table, Owner, {"token": "secret"})

    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value)
