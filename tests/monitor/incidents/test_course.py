"""One cause is one incident, from its first window until it is quiet."""

import pytest
from incident_story import DAY, Story, drifts, signal

from clipdrift_monitor.incidents.response import acknowledge, silence

BREAK = signal("sudden_break")
WORSE = signal("worse_than_validated")
BROKEN = signal("data_broken", feature="x1")
MOVED = signal("feature_drift", feature="x1")


def test_twenty_drifted_features_and_a_harmed_slice_are_one_incident_and_one_piece_of_news():
    story = Story()
    story.day(5, *drifts(20), signal("sudden_break", where="night"), cause="slice_drift")

    (one,) = story.told
    assert (one.change, one.root, one.severity, one.is_news) == ("opened", "harm", "page", True)
    assert one.slices == ("night",)
    assert one.features == tuple(f"x{i}" for i in range(20))
    assert (one.num_signals, len(one.open_signal_ids)) == (21, 21)
    assert (one.first_window_ms, one.last_window_ms) == (5 * DAY, 6 * DAY)
    assert (one.cause, one.decision_id) == ("slice_drift", "decision-5")


def test_drift_without_harm_is_a_note_that_asks_nobody_to_act():
    story = Story()
    story.day(5, *drifts(3))

    assert (story.open().root, story.open().severity) == ("drift", "note")
    assert "nobody needs to act" in story.open().plain


def test_harm_that_follows_the_drift_which_explains_it_makes_the_same_incident_louder():
    story = Story()
    story.day(5, *drifts(3))
    story.day(6, *drifts(3), WORSE, cause="drift")
    story.day(7, *drifts(3), WORSE, BREAK, cause="drift")

    assert [(one.change, one.severity, one.is_news) for one in story.told] == [
        ("opened", "note", True), ("updated", "ticket", True), ("updated", "page", True),
    ]  # fmt: skip
    assert len({one.incident_id for one in story.told}) == 1
    assert (story.open().root, story.open().cause) == ("harm", "drift")


def test_harm_long_after_a_drift_that_stands_for_months_is_an_incident_of_its_own():
    story = Story(same_cause_days=7.0)
    for day in range(5, 40):
        story.day(day, MOVED)
    story.day(40, MOVED, BREAK, cause="drift")

    assert sorted(one.root for one in story.incidents if one.is_open) == ["drift", "harm"]
    assert story.news == [("opened", "note"), ("opened", "page")]


@pytest.mark.parametrize("kind", ["sudden_break", "feature_drift", "mix_drift"])
def test_what_a_broken_feed_explains_belongs_to_it(kind):
    story = Story()
    story.day(5, BROKEN, signal(kind), cause="data_broken", fault="unit_change")

    assert (story.open().root, story.open().fault, story.open().num_signals) == ("data", "unit_change", 2)


def test_a_fault_that_is_found_a_day_after_the_harm_is_the_harms_cause_and_no_second_page():
    story = Story()
    story.day(5, BREAK, cause="unknown")
    story.day(6, BREAK, BROKEN, cause="data_broken")

    assert story.open().root == "data"
    assert story.news == [("opened", "page")]


def test_missing_labels_stand_for_themselves_and_wrong_labels_explain_the_harm():
    story = Story()
    story.day(5, signal("labels_missing"), *drifts(2))
    assert sorted(one.root for one in story.incidents) == ["drift", "labels"]

    story = Story()
    story.day(5, BROKEN, BREAK, cause="data_broken", fault="labels_flipped")
    assert story.open().root == "labels"


def test_the_diagnosis_is_only_in_incidents_that_it_is_about():
    story = Story()
    story.day(5, signal("labels_missing"), BREAK, cause="drift")

    by_root = {one.root: one for one in story.incidents}
    assert by_root["harm"].cause == "drift"
    assert (by_root["labels"].cause, by_root["labels"].diagnosis) == ("", None)


def test_it_is_over_after_so_many_quiet_windows_and_not_before():
    story = Story(quiet_windows=3)
    story.day(5, BREAK)
    for day in (6, 7):
        assert story.day(day) == []
    (over,) = story.day(8)

    assert (over.change, over.is_open, over.is_news, over.resolved_at_ms) == ("resolved", False, False, 10 * DAY)
    assert "3 judged windows in a row" in over.resolution
    assert over.last_window_ms == 6 * DAY


def test_a_signal_that_comes_and_goes_is_one_incident_that_is_never_over_and_told_once():
    story = Story(quiet_windows=2)
    for day in range(5, 25):
        story.day(day, *([signal("sudden_break", day=day)] if day % 2 else []), cause="drift")

    assert story.news == [("opened", "page")]
    assert story.open().num_signals == 10
    assert (story.open().num_reopened, story.open().num_windows) == (0, 10)


def test_what_comes_back_within_the_declared_time_is_the_same_incident_counted_and_later_another():
    story = Story(quiet_windows=1, reopen_days=7.0)
    story.day(5, BREAK)
    story.day(6)
    story.day(13, signal("sudden_break", day=13))  # 7 days after it was over
    again = story.told[-1]
    story.day(14)
    story.day(22, signal("sudden_break", day=22))

    assert (again.change, again.incident_id, again.num_reopened) == ("reopened", story.told[0].incident_id, 1)
    assert again.is_open
    assert again.resolved_at_ms is None
    assert story.told[-1].change == "opened"
    assert story.told[-1].incident_id != again.incident_id


def test_another_root_does_not_reopen_it():
    story = Story(quiet_windows=1)
    story.day(5, BREAK)
    story.day(6)
    story.day(7, signal("labels_missing", day=7))

    assert [one.change for one in story.told] == ["opened", "resolved", "opened"]


def test_a_severity_that_falls_is_never_news_and_one_that_rises_again_soon_is_none_either():
    story = Story(quiet_windows=2)
    story.day(5, BREAK, WORSE)
    story.day(6, WORSE)
    story.day(7, signal("sudden_break", day=7), WORSE)
    story.day(8, WORSE)

    assert [one.severity for one in story.told] == ["page", "ticket", "page", "ticket"]
    assert story.news == [("opened", "page")]


def test_a_page_is_told_again_where_the_incident_was_milder_for_as_long_as_makes_it_quiet():
    story = Story(quiet_windows=2)
    story.day(5, BREAK, WORSE)
    for day in (6, 7):
        story.day(day, WORSE)
    story.day(8, signal("sudden_break", day=8), WORSE)

    assert story.news == [("opened", "page"), ("updated", "page")]


def test_an_incident_that_comes_back_milder_and_grows_is_told_when_it_grows():
    story = Story(quiet_windows=1)
    story.day(5, BREAK)
    story.day(6)
    story.day(7, signal("worse_than_validated", day=7))
    story.day(8, signal("worse_than_validated", day=7), signal("sudden_break", day=8))

    assert story.news == [("opened", "page"), ("reopened", "ticket"), ("updated", "page")]


def test_another_version_ends_its_harm_at_once_and_not_a_broken_feed():
    story = Story()
    story.day(5, WORSE, signal("labels_missing"), cause="drift")
    (over,) = story.replace_version("2", day=8)

    assert (over.root, over.change, over.is_news) == ("harm", "resolved", False)
    assert over.resolution == "Version 2 came into service in place of 1."
    story.day(9, signal("labels_missing", day=9, version="2"), version="2")
    assert (story.open().root, story.open().version, story.open().num_signals) == ("labels", "2", 2)


def test_harm_of_another_version_is_another_incident():
    story = Story()
    story.day(5, WORSE, cause="drift")
    story.replace_version("2", day=8)
    story.day(9, signal("worse_than_validated", day=9, version="2"), version="2", cause="drift")

    assert [one.change for one in story.told] == ["opened", "resolved", "opened"]
    assert story.open().version == "2"


def test_nothing_but_figures_changed_is_kept_and_not_told():
    story = Story()
    story.day(5, BREAK)
    assert story.day(6, BREAK) == []

    assert (story.open().num_windows, story.open().last_window_ms, story.open().revision) == (2, 7 * DAY, 1)


def test_each_change_has_a_revision_of_its_own():
    story = Story(quiet_windows=1)
    story.day(5, MOVED)
    story.day(6, MOVED, WORSE)
    story.day(7)
    story.day(8, signal("worse_than_validated", day=8))

    assert [one.revision for one in story.told] == [1, 2, 3, 4]


def test_the_same_windows_give_the_same_incidents():
    one, other = Story(), Story()
    for story in (one, other):
        story.day(5, *drifts(4), BREAK, cause="drift")
        story.day(6, BREAK)
        story.day(7)
        story.day(8)

    assert one.told == other.told


def test_a_silence_holds_back_what_comes_back_and_not_what_grows_worse():
    story = Story(quiet_windows=1)
    story.day(5, WORSE)
    story.respond(silence, actor="Ada", reason="known", at_ms=story.now_ms, until_ms=story.now_ms + DAY, config=story.config)
    story.day(6)
    story.day(7, signal("worse_than_validated", day=7))
    story.day(8, signal("worse_than_validated", day=7), BREAK)

    assert story.news == [("opened", "ticket"), ("updated", "page")]
    assert story.told[2].is_held_back


def test_a_word_that_has_run_out_holds_nothing_back():
    story = Story(quiet_windows=1)
    story.day(5, WORSE)
    hold = {"actor": "Ada", "reason": "known", "at_ms": story.now_ms, "until_ms": story.now_ms + DAY, "config": story.config}
    story.respond(silence, **hold)
    story.respond(acknowledge, **hold)
    story.day(6)
    story.now_ms += DAY
    story.day(7, signal("worse_than_validated", day=7))

    assert story.news == [("opened", "ticket"), ("reopened", "ticket")]
    assert (story.open().silence, story.open().acknowledgement) == (None, None)


def test_links_and_evidence_are_those_of_the_incident():
    story = Story(
        dashboard_url="https://grafana.example/d/m?var-model={model}", runbook_url="https://wiki.example/{root}#{incident}"
    )
    story.day(5, BREAK, evidence={BREAK.signal_id: "/evidence/a.html"})
    story.day(6, BREAK)

    one = story.open()
    assert one.dashboard_url == "https://grafana.example/d/m?var-model=pump"
    assert one.runbook_url == f"https://wiki.example/harm#{one.incident_id}"
    assert one.evidence_uri == "/evidence/a.html"


def test_names_and_ids_are_bounded_however_long_it_lasts():
    story = Story()
    for day in range(5, 300):
        story.day(day, signal("feature_drift", day=day, feature=f"x{day}"))

    one = story.open()
    assert (len(one.features), len(one.signal_ids), one.num_signals) == (50, 200, 295)


def test_incidents_that_are_long_over_leave_the_working_set():
    story = Story(quiet_windows=1, reopen_days=3.0)
    story.day(5, BREAK)
    for day in range(6, 12):
        story.day(day)

    assert story.incidents == []


def test_words_are_for_an_engineer_and_for_anybody():
    story = Story()
    story.day(5, *drifts(8), signal("sudden_break", where="night"), cause="drift", moved=("x3", "x1"))

    one = story.open()
    assert one.summary == "pump: the model is worse than validated (in night; inputs: x0, x1, x2 and 5 more)"
    assert one.words.startswith("The words on drift. sudden_break night feature_drift x0")
    assert one.words.endswith("And 4 more signals.")
    assert one.plain == "The model makes more mistakes than when it was checked, above all in night. In plain words."


def test_names_with_braces_stay_as_they_are():
    story = Story()
    story.day(5, signal("sudden_break", where="{features}"), signal("feature_drift", feature="{slices}"))

    assert "above all in {features}" in story.open().plain
