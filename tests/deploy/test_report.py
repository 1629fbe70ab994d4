"""Pages joined into one file: what stays, what goes, and that nothing is loaded."""

from html.parser import HTMLParser

from clipdrift_deploy.report import Page, join_pages

OVERVIEW = """<!doctype html><html><head><title>Pumps</title><style>td{color:red}</style><link rel="icon" href="/x.ico">
<meta http-equiv="refresh" content="5"></head><body><h1>Pumps &amp; more</h1><a href="/models/pump">pump</a>
<svg viewBox="0 0 9 9"><title>a tooltip</title><path d="M0 0"/></svg><script>alert(1)</script>
<form action="/rollback" method="post"><button>roll back</button></form>
<a href="/api/v1/models">raw</a><img src="/plot.png"><img src="data:image/png;base64,AA==">
<p onclick="x()">5 &lt; 6</p></body></html>"""
MODEL = """<html><head><style>td{color:red}</style><style>b{color:blue}</style></head><body>
<b>pump</b><a href="/">all</a></body></html>"""
JOINED = join_pages("Pumps <1>", [Page("overview", "/", OVERVIEW), Page("pump", "/models/pump", MODEL)], "at <noon>")


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))


def tags() -> list[tuple[str, dict[str, str | None]]]:
    seen = Seen()
    seen.feed(JOINED)
    return seen.tags


def test_links_between_pages_lead_within_the_file() -> None:
    sections = [attributes["id"] for tag, attributes in tags() if tag == "section"]
    links = [attributes.get("href") for tag, attributes in tags() if tag == "a"]

    assert links == ["#page-1", None, "#page-0"]
    assert sections == ["page-0", "page-1"]


def test_nothing_is_loaded_and_nothing_needs_a_server() -> None:
    names = {tag for tag, _ in tags()}
    targets = [attributes[name] for _, attributes in tags() for name in ("href", "src") if attributes.get(name)]

    assert not names & {"script", "link", "form", "button", "base", "iframe"}
    assert all(target.startswith(("#", "data:")) for target in targets)
    assert not [name for _, attributes in tags() for name in attributes if name.startswith("on")]
    assert "refresh" not in JOINED
    assert "roll back" not in JOINED


def test_words_pictures_and_tooltips_stay_as_they_were() -> None:
    for text in ("Pumps &amp; more", "<title>a tooltip</title>", '<path d="M0 0"/>', "5 &lt; 6", "base64,AA=="):
        assert text in JOINED


def test_each_style_is_there_once_and_what_is_given_is_escaped() -> None:
    assert JOINED.count("td{color:red}") == 1
    assert "b{color:blue}" in JOINED
    assert "<title>Pumps &lt;1&gt;</title>" in JOINED
    assert "at &lt;noon&gt;</footer>" in JOINED
