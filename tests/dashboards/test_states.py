"""Every dashboard in every state, as a real Prometheus answers: healthy, harmed, empty, stale, and with 200 models."""

import json
import re
from collections.abc import Iterator

import crowd
import pytest
import synthetic_month
from check_demo_metrics import answers, chosen
from dashboard_queries import BOARDS, RULES, variables_of
from real_prometheus import PastPrometheus, past_prometheus

from clipdrift_dashboards.linting import panels_of
from clipdrift_dashboards.viewer.asking import Prometheus, Span
from clipdrift_dashboards.viewer.page import Sight, page

pytestmark = pytest.mark.prometheus

NUM_MODELS = 200
NOTHING = "# TYPE clipdrift_of_nobody gauge\nclipdrift_of_nobody 1.0 1362096000.000\n# EOF\n"


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PastPrometheus]:
    folder = tmp_path_factory.mktemp("month")
    synthetic_month.write(folder / "metrics.om")
    with past_prometheus(folder / "metrics.om", RULES, folder) as running:
        yield running


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PastPrometheus]:
    folder = tmp_path_factory.mktemp("nothing")
    (folder / "metrics.om").write_text(NOTHING)
    with past_prometheus(folder / "metrics.om", RULES, folder) as running:
        yield running


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PastPrometheus]:
    folder = tmp_path_factory.mktemp("many")
    day = 86_400
    crowd.write(
        folder / "metrics.om", num_models=NUM_MODELS, num_features=2, num_slices=2, scrape_seconds=day, parts_seconds=day
    )
    with past_prometheus(folder / "metrics.om", RULES, folder) as running:
        yield running


def shown(name: str, prometheus: PastPrometheus, model: str = "", end: float | None = None) -> str:
    """The dashboard as the viewer draws it, collapsed rows opened."""
    scrape = prometheus.scrape_seconds
    span = Span(start=prometheus.start - scrape, end=end or prometheus.end, scrape_seconds=scrape)
    return page(BOARDS[name], Prometheus(prometheus.url), Sight(span=span, chosen={"model": model}, is_open=True))


def empty_ones(html: str) -> list[str]:
    """What panels without data say."""
    return re.findall(r'class="(?:empty|none)"[^>]*>([^<]+)<', html)


def num_panels(html: str) -> int:
    return len(re.findall(r"<section ", html))


@pytest.mark.parametrize("model", [synthetic_month.WELL, synthetic_month.HARMED])
@pytest.mark.parametrize("name", BOARDS)
def test_healthy_and_harmed_every_panel_has_something_to_show(month: PastPrometheus, name: str, model: str) -> None:
    html = shown(name, month, model)
    assert num_panels(html) >= len(list(panels_of(BOARDS[name])))
    may_lack = {  # what has not happened to the healthy one, and no value of a range that is not there
        panel["fieldConfig"]["defaults"]["noValue"]
        for panel in panels_of(BOARDS[name])
        if model == synthetic_month.WELL and re.search("etrain|ollout|rollback|foretold", panel["title"])
    }
    assert set(empty_ones(html)) <= may_lack


def test_a_table_of_one_query_has_one_column_for_it(month: PastPrometheus) -> None:
    assert shown("pipeline", month).count("<th>How much</th>") == 1


@pytest.mark.parametrize("name", BOARDS)
def test_empty_every_panel_says_why(nothing: PastPrometheus, name: str) -> None:
    html = shown(name, nothing)
    repeated = [panel for panel in panels_of(BOARDS[name]) if "repeat" in panel]
    wanted = [panel for panel in panels_of(BOARDS[name]) if panel not in repeated]
    assert num_panels(html) == len(wanted)
    said = [one.replace("&#x27;", "'") for one in empty_ones(html)]
    assert sorted(said) == sorted(panel["fieldConfig"]["defaults"]["noValue"] for panel in wanted)
    assert all(len(one) > 20 for one in said)


@pytest.mark.parametrize("name", BOARDS)
def test_stale_no_figure_of_now_is_left_and_graphs_end_where_the_monitor_did(month: PastPrometheus, name: str) -> None:
    html = shown(name, month, synthetic_month.HARMED, end=month.end + 5 * 86_400)
    figures = re.findall(r'<section id="panel-\d+" class="(?:stat|table)".*?</section>', html, re.DOTALL)
    assert figures
    figures = [one for one in figures if "Time spent retraining" not in one]  # of the whole range, and says so
    for figure in figures:
        assert 'class="big"' not in figure, re.sub("<[^>]+>", " ", figure)
        assert "<td" not in figure


@pytest.mark.parametrize("name", BOARDS)
def test_with_200_models_every_query_is_answered_and_a_reader_can_read_it(many: PastPrometheus, name: str) -> None:
    variables = variables_of(BOARDS[name])
    if "model" in variables:
        assert len(many.label_values("clipdrift_model_generation", "model")) == NUM_MODELS
        html = shown(name, many, crowd.model_name(0))
        assert html.count("<option") >= NUM_MODELS
        assert not empty_ones(html)
        return
    values = chosen(many, BOARDS[name], "")
    at_most = int(values["top"])
    for one in answers(many, name):
        most = 50 if one.query.kind == "table" else max(at_most, 12)  # a table scrolls, a graph does not
        assert one.query.is_annotation or len(one.series) <= most, one.query.title
    html = shown(name, many)
    assert not empty_ones(html)
    assert crowd.model_name(0) in html  # one of the harmed


def test_the_pages_are_whole_without_anything_from_elsewhere(month: PastPrometheus) -> None:
    html = shown("model", month, synthetic_month.HARMED)
    assert not re.findall(r'(?:src|href)="https?://(?!localhost)', html)
    assert "<script" not in html
    assert json.dumps(BOARDS["model"]["title"]).strip('"') in html
