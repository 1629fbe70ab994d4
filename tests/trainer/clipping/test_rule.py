import pytest

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rules import make_clipper


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            ClipSpec(kind="zclip", options={"alfa": 0.9}),
            "unknown field `alfa`; its options are alpha .0.97., z_threshold .2.5.",
        ),
        (ClipSpec(kind="zclip", options={"alpha": 1.0}), "< 1"),
        (ClipSpec(kind="zclip", options={"alpha": float("nan")}), "alpha"),
        (ClipSpec(kind="zclip", options={"warmup_steps": 2.5}), "int"),
        (ClipSpec(kind="zclip", options={"z_threshold": "high"}), "float"),
        (ClipSpec(kind="adagc", options={"lambda_rel": 0.0}), "> 0"),
        (ClipSpec(kind="quantile", options={"target": 1.5}), "<= 1"),
        (ClipSpec(kind="quantile", options={"min_bound": 3.0, "max_bound": 2.0}), "min_bound must be < max_bound"),
        (ClipSpec(kind="agc", options={"exclude_last": -1.0}), ">= 0"),
        (ClipSpec(kind="agc", max_norm=1.0), "takes no max_norm, got 1.0; its options are clip_factor"),
        (ClipSpec(kind="global_norm", max_norm=1.0, options={"alpha": 0.9}), "unknown field `alpha`; it has no options"),
    ],
)
def test_settings_that_make_no_sense_are_refused_and_what_is_allowed_is_named(spec, words):
    with pytest.raises(ValueError, match=words):
        make_clipper(spec)


def test_options_may_be_written_as_text_or_whole_numbers():
    clipper = make_clipper(ClipSpec(kind="zclip", options={"alpha": "0.5", "warmup_steps": 3}))
    assert clipper.state_dict()["count"] == 0
