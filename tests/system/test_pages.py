"""The status page of a loop that has lived through something, as a browser shows it."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from small_loop import Loop

pytestmark = [
    pytest.mark.browser,
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium"),
]
PAGES = {"index": "/", "changed": "/models/valve", "steady": "/models/steady"}


class Page(HTMLParser):
    """What a person sees: the words, and what each picture is drawn of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.pictures: list[list[str]] = []  # coordinates of the lines and dots of each
        self.labels: list[float] = []  # how far below the top of its picture each label stands
        self.addresses: list[str] = []
        self._hidden = 0
        self.feed(html)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._hidden += tag in ("style", "script")
        self.addresses += [given[name] for name in ("src", "href") if name in given]
        if tag == "text":
            self.labels.append(float(given["y"]))
        if tag == "svg":
            self.pictures.append([])
        elif tag in ("polyline", "circle", "polygon", "path"):
            self.pictures[-1].append(given.get("points") or given.get("d") or f"{given.get('cx')},{given.get('cy')}")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def browse(url: str, folder: Path) -> tuple[str, Path]:
    """The page's DOM and a picture of it."""
    picture = folder / "page.png"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/user"]
    subprocess.run(
        [*command, "--window-size=1200,3600", f"--screenshot={picture}", url], capture_output=True, timeout=90, check=True
    )
    dom = subprocess.run([*command, "--dump-dom", url], capture_output=True, text=True, timeout=90, check=True).stdout
    return dom, picture


@pytest.fixture(params=PAGES, scope="module")
def seen(request: pytest.FixtureRequest, finished: Loop, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page, Path]:
    dom, picture = browse(finished.running.monitor_url + PAGES[request.param], tmp_path_factory.mktemp(request.param))
    return request.param, Page(dom), picture


def test_no_chart_is_empty(seen: tuple[str, Page, Path]) -> None:
    name, page, _ = seen

    assert len(page.pictures) == (2 if name == "index" else 4), "a small one for each model, or four large ones"
    for shapes in page.pictures:
        assert shapes
        for points in shapes:
            assert len(re.findall(r"-?\d+\.\d+,-?\d+\.\d+", points)) >= 2, points
            assert "nan" not in points.lower()


def test_no_label_is_cut_off(seen: tuple[str, Page, Path]) -> None:
    _, page, _ = seen

    assert all(10.0 <= y <= 190.0 for y in page.labels), "letters are 11 high, pictures 190"


def test_no_word_shows_that_something_was_not_known(seen: tuple[str, Page, Path]) -> None:
    _, page, _ = seen
    text = page.text.replace("None so far.", "")

    assert len(text) > 200
    assert not re.findall(r".{30}\b(?:None|nan|NaN|inf|undefined|Undefined)\b.{30}", text)
    assert not re.findall(r"[{}]|\bb'", text), "nothing of Python or of the template shows"


def test_the_pages_say_what_happened(seen: tuple[str, Page, Path]) -> None:
    name, page, _ = seen
    told = {
        "index": ("Valves of a small plant", "valve", "steady", "healthy", "live accuracy"),
        "changed": ("sudden break", "pass", "same", "promote", "better than the model in service", "north", "south"),
        "steady": ("None so far.", "north", "south"),
    }

    for words in told[name]:
        assert words in page.text, words


def test_the_pages_load_nothing_from_elsewhere(seen: tuple[str, Page, Path]) -> None:
    _, page, picture = seen

    assert not [address for address in page.addresses if address.startswith(("http", "//"))]
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.stat().st_size > 20_000, "more than a blank sheet"
