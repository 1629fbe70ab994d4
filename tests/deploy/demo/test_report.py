"""The report: one file with everything in it, that asks the network for nothing."""

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
import tiny_demo as tiny

from clipdrift_deploy.demo.figures import Share
from clipdrift_deploy.demo.narration import tell_in_order
from clipdrift_deploy.demo.plots import Shadow, Traffic
from clipdrift_deploy.demo.report import Link, ReportModel, share_text, write_report
from clipdrift_deploy.demo.result import model_result
from clipdrift_deploy.demo.story import Story


class Parts(HTMLParser):
    """Addresses that a page loads or links, its tags, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self._hidden = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self._hidden += tag == "style"
        self.addresses += [given[name] or "" for name in ("src", "href", "xlink:href", "action") if name in given]
        self.ids += [given["id"] or ""] if "id" in given else []

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag == "style"

    def handle_data(self, data: str) -> None:
        self.text += "" if self._hidden else data


def written(path: Path, story: Story, **changes: object) -> str:
    model = msgspec.structs.replace(tiny.result().models["one"], **changes)
    events = [*story.signals.values(), *story.decisions.values(), *story.requests.values(), *story.deployments.values()]
    shown = ReportModel(words="SGD at 0.1.", story=story, lines=tuple(tell_in_order(events, story.requests)), swaps=(0.7,))
    write_report(path, tiny.result(models={"one": model}), {"one": shown}, "Data: made up.")
    return path.read_text()


def test_it_asks_the_network_for_nothing_and_runs_no_script(tmp_path: Path) -> None:
    html = written(tmp_path / "report.html", tiny.story())
    parts = Parts(html)

    assert not [one for one in parts.addresses if not one.startswith("#")]
    assert not {"script", "link", "iframe", "img", "object"} & set(parts.tags)
    assert not re.findall(r"@import|url\((?!#)", html)


def test_what_one_picture_refers_to_is_not_in_another(tmp_path: Path) -> None:
    html = written(tmp_path / "report.html", tiny.story())
    parts = Parts(html)
    referred = {one.removeprefix("#") for one in parts.addresses} | set(re.findall(r"url\(#([^)]+)\)", html))

    assert len(referred) > 4, "clip paths and markers"
    assert {parts.ids.count(one) for one in referred} == {1}


def test_it_shows_figures_lines_arms_and_pictures(tmp_path: Path) -> None:
    html = written(tmp_path / "report.html", tiny.story())
    text = " ".join(Parts(html).text.split())

    assert html.count("<svg") == 4
    for words in (
        "2013-03",
        "decision: retrain",
        "version v2 goes into service",
        "q90",
        "-0.0300 (-0.0400 to -0.0200)",
        "Data: made up.",
    ):
        assert words in text, words
    assert not re.findall(r"\b(None|nan|inf)\b", text)


def test_where_there_was_no_retrain_it_says_what_would_tell(tmp_path: Path) -> None:
    quiet = Story()
    for event in (tiny.run(), tiny.window(), tiny.deployment(1, "v1")):
        quiet.add(event)

    html = written(tmp_path / "report.html", quiet, retrains=(), alarms=(), diagnosis="unknown")

    assert "a shadow retrain would tell" in html
    assert html.count("<svg") == 3, "no picture of arms that were never tried"


def test_words_of_events_cannot_become_markup(tmp_path: Path) -> None:
    html = written(tmp_path / "report.html", tiny.story(tiny.signal("sudden_break", "page", slice="<b>JFK</b>")))

    assert "<b>JFK</b>" not in html
    assert "&lt;b&gt;JFK&lt;/b&gt;" in html


def test_evidence_is_linked_where_there_is_some(tmp_path: Path) -> None:
    shown = ReportModel(
        words="",
        story=tiny.story(),
        lines=(),
        swaps=(),
        evidence=(Link(words="the window of 20 March", path="evidence/one.html"),),
    )
    write_report(tmp_path / "report.html", tiny.result(), {"one": shown}, "")

    parts = Parts((tmp_path / "report.html").read_text())
    assert "evidence/one.html" in parts.addresses
    assert "the window of 20 March" in parts.text


@pytest.mark.parametrize(("share", "words"), [(0.812, "81%"), (0.0, "0%"), (-0.2, "-20%"), (None, "-")])
def test_a_share_is_told_in_per_cent(share: float | None, words: str) -> None:
    assert share_text(Share(auc=share, nll=1.0), "auc") == words


def test_it_draws_who_answered_and_says_how_each_repair_came_into_service(tmp_path: Path) -> None:
    figures = model_result(msgspec.structs.replace(tiny.facts(), story=tiny.rollout_story()))
    traffic = Traffic(
        days=(0.0, 0.5, 1.0), shares={"v1": (1.0, 0.9, 0.0), "v2": (0.0, 0.1, 1.0)},
        shadows=(Shadow(version="v2", start=0.2, end=0.4), Shadow(version="v1", start=1.0, end=1.4)),
    )  # fmt: skip
    shown = ReportModel(words="", story=tiny.rollout_story(), lines=(), swaps=(), traffic=traffic)
    path = tmp_path / "report.html"
    write_report(path, tiny.result(models={"one": figures}), {"one": shown}, "")
    text = " ".join(Parts(path.read_text()).text.split())

    assert "shadow from 2013-03-23, canary 0.1 from 2013-03-27" in text
    assert "promoted" in text
    assert "each answered unseen first" in text
    assert path.read_text().count("<svg") == 5
