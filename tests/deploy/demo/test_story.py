"""The story of a model: each statement once, whatever comes twice."""

from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import tiny_demo as tiny

from clipdrift_contract.events import TOPIC_OF, Event, GradWindow
from clipdrift_deploy.demo.story import TOPICS, Story

GOLDEN = Path(__file__).parents[2] / "contract" / "golden"


def test_a_statement_that_comes_again_is_not_new_and_the_newest_form_is_kept() -> None:
    story = Story()

    assert story.add(tiny.signal(is_open=True))
    assert not story.add(tiny.signal(is_open=False))
    assert [one.is_open for one in story.signals.values()] == [False]


def test_windows_are_kept_by_run_and_are_no_news() -> None:
    story = Story()

    assert not story.add(tiny.window())
    assert not story.add(tiny.window())
    assert len(story.windows["run-v1"]) == 2


def test_an_order_meets_its_outcome_and_the_deployment_that_it_led_to() -> None:
    (retrain,) = tiny.story().retrains

    assert retrain.outcome is not None
    assert retrain.outcome.key == retrain.request.key
    assert retrain.deployment is not None
    assert retrain.deployment.champion.version == retrain.outcome.candidate_version


def test_steps_beside_the_version_in_service_bring_no_other_version_into_service() -> None:
    story = tiny.rollout_story()

    assert [one.generation for one in story.in_order] == [1, 2, 3, 4, 5]
    assert [(one.generation, one.champion.version) for one in story.came_into_service] == [(1, "v1"), (4, "v2")]
    (retrain,) = story.retrains
    assert retrain.deployment is not None
    assert retrain.deployment.generation == 4


def test_an_order_may_still_be_without_both() -> None:
    story = Story()
    story.add(tiny.request())

    (retrain,) = story.retrains

    assert (retrain.outcome, retrain.deployment) == (None, None)


def test_where_nothing_was_diagnosed_the_verdict_is_unknown() -> None:
    assert Story().clipping_verdict() == "unknown"


@pytest.mark.parametrize("kind", [kind for kind in get_args(Event) if TOPIC_OF[kind] in TOPICS])
def test_every_event_of_a_topic_that_is_read_has_its_place(kind: type[Any]) -> None:
    event = msgspec.msgpack.decode((GOLDEN / f"{kind.__name__}-v1.msgpack").read_bytes(), type=kind)

    assert Story().add(event) == (kind is not GradWindow)
