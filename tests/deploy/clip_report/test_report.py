"""The page: one file with everything in it, that asks the network for nothing and can be read by all."""

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from made_runs import CLIP, FAULT, rich_end, rich_windows, window

from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_contract.events import ClipSpec, DataCheck, ScoreInterval, SliceGradient
from clipdrift_deploy.clip_report.gathering import RunRecord
from clipdrift_deploy.clip_report.report import report_on, write_report


class Page(HTMLParser):
    """Tags with their attributes, addresses, headings and text of a page; fails on tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        self.addresses += [given[name] or "" for name in ("src", "href", "xlink:href", "action") if name in given]
        if tag not in ("meta", "br", "link", "img"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)
        if "style" not in self._open:
            self.text += data


def rich_record(**changes: object) -> RunRecord:
    given = {"run_id": "run-1", "model": "pump", "windows": rich_windows(), "end": rich_end()}
    return RunRecord(**(given | changes))


def page(path: Path, record: RunRecord) -> Page:
    write_report(path, record)
    return Page(path.read_text())


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page(tmp_path_factory.mktemp("report") / "report.html", rich_record())


def test_it_asks_the_network_for_nothing_and_runs_no_script(rich: Page) -> None:
    assert not [one for one in rich.addresses if not one.startswith(("#", "data:image/png"))]
    assert not {"script", "link", "iframe", "img", "object"} & {tag for tag, _ in rich.tags}


def test_every_picture_says_in_words_what_it_shows_and_has_a_table_beside_it(rich: Page) -> None:
    pictures = [given for tag, given in rich.tags if tag == "svg"]
    assert len(pictures) == 11
    assert all(given["role"] == "img" and len(given["aria-label"] or "") > 20 for given in pictures)
    assert sum(tag == "table" for tag, _ in rich.tags) > len(pictures)
    assert all(given.get("scope") == "col" for tag, given in rich.tags if tag == "th")


def test_everything_that_a_run_can_have_is_shown(rich: Page) -> None:
    for words in (
        "Norms and the bound", "How much was removed", "The factor on the gradient", "Learning rate", "All norms of the run",
        "Groups of layers", "Every layer over time", "Slices by their part of the gradient", "Spikes", "Training loss",
        "Do probabilities keep their word?", "Accuracy by slice", "Slices that the figure of all rows hides",
        "What a temperature would gain", "Checks before training", "What the run spent", "Can it be told what was trained on?",
        "What a retrain would try",
    ):  # fmt: skip
        assert words in rich.headings, words
    for words in (
        "batch 13",
        "12 labels look wrong",
        "-0.220 to -0.080",
        "3.1",
        "0.510 to 0.550",
        "AutoClip, 10th percentile",
    ):
        assert words in rich.text, words


def test_slices_measured_exactly_at_the_end_stand_in_place_of_what_the_head_layer_told(tmp_path: Path) -> None:
    exact = tuple(
        SliceGradient(slice=name, num_samples=100, grad_mass_sum=mass, loss_sum=1.0, kind="exact")
        for name, mass in (("north", 30.0), ("south", 90.0))
    )
    shown = page(tmp_path / "report.html", rich_record(end=rich_end(slice_gradients=exact)))
    assert "Measured exactly, over all parameters." in shown.text
    assert "Measured at the head layer" not in shown.text
    assert "75\u00a0%" in shown.text


def test_norms_of_samples_are_not_called_norms_of_steps(tmp_path: Path) -> None:
    by_sample = ClipSpec(kind="per_sample", max_norm=1.0)
    windows = tuple(msgspec.structs.replace(one, clip=by_sample) for one in rich_windows())
    shown = page(tmp_path / "report.html", rich_record(windows=windows, end=rich_end(clip=by_sample, temperature=1.3))).text
    for words in ("of samples’ gradient norms removed", "median norm of a sample’s gradient", "% of samples"):
        assert words.replace(" %", "\u00a0%") in shown, words
    assert "% of steps" not in shown
    assert "the model's temperature of 1.3 takes back" in shown


@pytest.mark.parametrize(
    ("temperature", "title", "heads"),
    [
        (1.0, "What a temperature would gain", ("as it is", "with temperature")),
        (1.3, "What the model's temperature gained", ("without it", "as it is")),
    ],
)
def test_a_temperature_that_the_model_has_is_not_called_one_that_it_could_have(tmp_path, temperature, title, heads) -> None:
    shown = page(tmp_path / "report.html", rich_record(end=rich_end(temperature=temperature)))
    assert title in shown.headings
    assert shown.text.index(title) < shown.text.index(heads[0], shown.text.index(title)) < shown.text.rindex(heads[1])


def test_an_interval_of_a_single_day_is_left_out(tmp_path: Path) -> None:
    """It spans all that is possible."""
    one_day = tuple(
        ScoreInterval(slice=name, metric="mae", value=0.4, low=0.0, high=1e9, num_rows=9, num_blocks=1)
        for name in ("", "south")
    )
    shown = page(tmp_path / "report.html", rich_record(end=rich_end(intervals=one_day)))
    assert "Mean absolute error by slice" in shown.headings
    assert "e+09" not in shown.text
    assert "to 1000000000" not in shown.text


def test_where_no_check_names_a_feature_there_is_no_column_for_them(rich: Page, tmp_path: Path) -> None:
    checks = (DataCheck(name="units", outcome="pass", words="no number changed its unit"),)
    assert "what was foundfeatures" in rich.text
    assert "what was foundfeatures" not in page(tmp_path / "report.html", rich_record(end=rich_end(data_checks=checks))).text


def test_a_number_and_its_per_cent_sign_stay_on_one_line(rich: Page) -> None:
    assert re.search(r"Clipping removed \d+\u00a0% of the gradient norm, on 100\u00a0% of the steps", rich.text)


def test_removed_mass_stands_before_the_clip_rate(rich: Page) -> None:
    assert 0 < rich.text.index("of the gradient norm removed") < rich.text.index("of the steps clipped")


def test_names_from_outside_are_text(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>"
    windows = tuple(msgspec.structs.replace(one, optimizer=nasty) for one in rich_windows())
    shown = page(tmp_path / "report.html", rich_record(model=nasty, windows=windows))
    assert nasty in shown.headings[0]
    assert "script" not in {tag for tag, _ in shown.tags}


def test_a_dollar_in_a_name_is_no_formula(tmp_path: Path) -> None:
    first = rich_windows()[0]
    nasty = "$\\frac{$"  # matplotlib would raise
    record = rich_record(
        windows=(
            msgspec.structs.replace(
                first,
                slices=tuple(msgspec.structs.replace(one, slice=nasty) for one in first.slices),
                layers=tuple(msgspec.structs.replace(one, name=nasty) for one in first.layers),
                groups=tuple(msgspec.structs.replace(one, name=nasty) for one in first.groups),
            ),
        )
    )
    assert page(tmp_path / "report.html", record).text.count(nasty) >= 6


def test_faults_are_shown_with_what_to_do(tmp_path: Path) -> None:
    shown = page(tmp_path / "report.html", rich_record(windows=(window(0, faults=(FAULT,)),)))
    assert "First mend the training" in shown.text
    assert "after the step the gradients have been used already" in shown.text


@pytest.mark.parametrize(
    "windows",
    [
        (window(0),),
        (window(0, num_nonfinite=50, norm_sum=0.0, norm_removed_sum=0.0, norm_histogram={}, norm_min=None, norm_max=0.0),),
        (window(0, norm_histogram={-80: 50}, norm_sum=0.0, norm_removed_sum=0.0, norm_max=0.0, norm_min=0.0),),
        (window(0, clip=ClipSpec(), max_norm_last=None, norm_removed_sum=0.0, num_clipped=0),),
        (window(0, effective_learning_rate_sum=0.0, optimizer="", num_checked=0),),
        (window(0), window(5_000)),
        tuple(window(50 * i, clip=CLIP) for i in range(2_000)),
    ],
    ids=["one", "nothing finite", "all zero", "no clipping", "old", "gap", "long"],
)
def test_any_run_has_a_page(tmp_path: Path, windows) -> None:
    assert page(tmp_path / "report.html", rich_record(windows=windows, end=None)).headings
    assert len((tmp_path / "report.html").read_bytes()) < 1_000_000


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    cut_off = page(path, rich_record(windows=(window(0), window(5_000)), end=None, num_unreadable=3)).text
    for words in ("The end of this run was not recorded", "4,950 steps in between were not recorded", "3 lines of the file"):
        assert words in cut_off
    assert "No windows of this run were kept" in page(path, rich_record(windows=())).text


def test_a_run_that_left_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="left neither windows nor its end"):
        write_report(tmp_path / "report.html", rich_record(windows=(), end=None))


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClipdriftError, match="cannot be written"):
        write_report(tmp_path / "file" / "report.html", rich_record(windows=()))


def test_the_same_run_gives_the_same_page_but_for_the_ids_of_its_pictures(tmp_path: Path) -> None:
    pages = []
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, rich_record(windows=rich_windows(2), end=None))
        pages.append(re.sub(r'(id="|#|url\(#)[^")]+', r"\1", (tmp_path / name).read_text()))
    assert pages[0] == pages[1]


def test_a_model_that_is_not_in_the_project_is_refused(make_project, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model 'pmup'"):
        report_on(make_project, "pmup", "", tmp_path / "report.html")


@pytest.mark.browser
@pytest.mark.parametrize("width", [375, 1_100])
def test_no_browser_has_to_scroll_the_page_sideways(tmp_path: Path, width: int) -> None:
    from playwright.sync_api import sync_playwright

    write_report(tmp_path / "report.html", rich_record(windows=(*rich_windows(), window(1_500, faults=(FAULT,)))))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": 800})
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto((tmp_path / "report.html").as_uri())
        sideways = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        browser.close()
    assert sideways == 0
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
