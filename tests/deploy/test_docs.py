"""The generated pages are the ones in the repository, and nothing that a user may set or call is missing from them."""

from pathlib import Path

import msgspec
import pytest

from clipdrift_deploy import docs

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("page", "text"), [(docs.SETTINGS_PAGE, docs.settings_page()), (docs.COMMANDS_PAGE, docs.commands_page())]
)
def test_the_page_in_the_repository_is_the_generated_one(page: Path, text: str) -> None:
    assert (ROOT / page).read_text() == text, "run `make docs`"


def test_every_setting_has_words_and_none_is_one_that_clipdrift_fills() -> None:
    for name, owner in docs.sections():
        for setting, _, words in docs.rows_of(owner):
            assert words or name == "models.NAME.clip", f"[{name}] {setting} says nothing"
            assert not words.startswith("Filled"), f"[{name}] {setting}"


def test_a_table_within_a_table_has_a_section_of_its_own() -> None:
    names = [name for name, _ in docs.sections()]

    assert {"policy.budget", "policy.harm", "policy.drift", "training.gate", "models.NAME.clip"} <= set(names)
    assert len(names) == len(set(names))


def test_inherited_settings_keep_their_words_and_comments_stand_in_for_docstrings() -> None:
    class Base(msgspec.Struct):
        first: int = 1
        """Of the base."""

    class Derived(Base):
        second: int = 2  # of the derived

    assert list(docs.rows_of(Derived)) == [("first", "`1`", "Of the base."), ("second", "`2`", "of the derived")]


def test_every_command_shows_an_example_of_itself() -> None:
    page = docs.commands_page()

    for section in page.split("## `clipdrift ")[1:]:
        name = section.partition("`")[0]
        assert f"    clipdrift {name}" in section, name
