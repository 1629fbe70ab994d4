"""Joins server-rendered pages into one HTML file: their styles, their bodies, links between them as links within the file."""

from collections.abc import Mapping, Sequence
from html import escape
from html.parser import HTMLParser
from typing import NamedTuple

_DROPPED = ("script", "noscript", "form", "button")  # nothing that would need the server
_SKELETON = ("html", "body", "meta", "link", "base")


class Page(NamedTuple):
    """A page as it was fetched, and the path that others link to it by."""

    title: str
    path: str
    html: str


def join_pages(title: str, pages: Sequence[Page], note: str = "") -> str:
    """One HTML document that shows `pages` one below the other and loads nothing.

    Scripts and forms are left out; of links to what the file does not hold the words stay. `note` stands at the end.

    Example:
        >>> page = Page("all", "/", '<body><a href="/">all</a><a href="/api">raw</a></body>')
        >>> '<section id="page-0"><a href="#page-0">all</a><a>raw</a></section>' in join_pages("pumps", [page])
        True
    """
    anchors = {page.path: f"page-{number}" for number, page in enumerate(pages)}
    styles: dict[str, None] = {}  # in order, each once
    sections = []
    for page in pages:
        body = _Body(anchors)
        body.feed(page.html)
        body.close()
        styles.update(dict.fromkeys(body.styles))
        sections.append(f'<section id="{anchors[page.path]}">{"".join(body.parts).strip()}</section>')
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{"".join(styles)}</style></head>\n'
        f"<body>\n{'<hr>'.join(sections)}\n<footer>{escape(note)}</footer>\n</body></html>\n"
    )


class _Body(HTMLParser):
    """Writes a page's body anew, and keeps its styles aside."""

    def __init__(self, anchors: Mapping[str, str]) -> None:
        super().__init__(convert_charrefs=False)
        self.parts: list[str] = []
        self.styles: list[str] = []
        self._anchors = anchors
        self._inside: list[str] = []  # open elements whose text is not the body's

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "body":
            self._inside.clear()  # a head need not be closed
        elif tag in (*_DROPPED, "style", "head"):
            self._inside.append(tag)
        elif not self._inside and tag not in _SKELETON:
            self.parts.append(f"<{tag}{self._attributes(attrs)}>")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._inside and tag not in (*_DROPPED, *_SKELETON):
            self.parts.append(f"<{tag}{self._attributes(attrs)}/>")

    def handle_endtag(self, tag: str) -> None:
        if self._inside:
            if tag == self._inside[-1]:
                self._inside.pop()
        elif tag not in _SKELETON:
            self.parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.parts.append(data)
        elif self._inside[-1] == "style":
            self.styles.append(data)

    def handle_entityref(self, name: str) -> None:
        self.handle_data(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.handle_data(f"&#{name};")

    def _attributes(self, attrs: Sequence[tuple[str, str | None]]) -> str:
        kept = [(name, self._link(value or "") if name == "href" else value) for name, value in attrs if name[:2] != "on"]
        return "".join(
            f" {name}" if value is None else f' {name}="{escape(value)}"'
            for name, value in kept
            if name not in ("href", "src", "xlink:href") or (value or "").startswith(("#", "data:"))
        )

    def _link(self, target: str) -> str:
        return f"#{self._anchors[target]}" if target in self._anchors else target
