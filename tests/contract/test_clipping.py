"""What the doctest of `describe_clip` does not show."""

import pytest

from clipdrift_contract.clipping import describe_clip
from clipdrift_contract.events import ClipSpec


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (ClipSpec(), "no clipping"),
        (ClipSpec(kind="value", max_norm=0.12345), "value 0.123"),
        (ClipSpec(kind="autoclip", percentile=5), "AutoClip, 5th percentile"),
        (ClipSpec(kind="agc"), "AGC"),
        (ClipSpec(kind="zclip", max_norm=2.0), "ZClip 2"),
        (ClipSpec(kind="per_tensor", max_norm=0.1), "per tensor 0.1"),
    ],
)
def test_a_clipping_rule_is_told_in_a_few_words(clip: ClipSpec, words: str) -> None:
    assert describe_clip(clip, digits=3) == words


@pytest.mark.parametrize(
    "changes",
    [
        {"max_norm": 0.50000001},
        {"norm_type": 1.0},
        {"norm_type": float("inf")},
        {"percentile": 5.0},
        {"options": {"warmup": 20.0}},
    ],
)
def test_policies_of_different_settings_are_never_called_the_same(changes: dict) -> None:
    given = {"kind": "autoclip", "max_norm": 0.5}
    assert describe_clip(ClipSpec(**(given | changes))) != describe_clip(ClipSpec(**given))
