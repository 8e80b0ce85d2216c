"""Builds HTML: elements, whose text is always escaped, and the page that contains them.

    page.tag("p", "a < b ", page.tag("b", "c"), class_="note")        <p class="note">a &lt; b <b>c</b></p>

The page embeds its style (`page.css`) and its scripts (`page.js`, plotly.js); its policy forbids all requests.
"""

import html
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from plotly.offline import get_plotlyjs

from plasticity_jax import strict_json

# Nothing is loaded from outside; plotly creates images of its charts as blobs.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
VOID = {"meta", "br", "hr", "input"}


class Html(str):
    """Text that is already HTML."""


def tag(name: str, /, *inside: Any, **attributes: Any) -> Html:
    """An HTML element; its content and attributes are escaped, except for content of type `Html`.

    Args:
      inside: the content, in order; None is skipped, and values other than `Html` are converted to text.
      attributes: `class_` gives class and `data_x` gives data-x.  True is an attribute without a value; None and False
        omit it.
    """
    shown = "".join(_attribute(key, value) for key, value in attributes.items())
    return Html(f"<{name}{shown}>" + ("" if name in VOID else f"{join(inside)}</{name}>"))


def join(parts: Iterable[Any]) -> Html:
    """The concatenated parts, escaped unless they are `Html`; None is skipped."""
    return Html(
        "".join(part if isinstance(part, Html) else html.escape(str(part)) for part in parts if part is not None)
    )


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], numbers: Iterable[int] = (), wide: bool = False) -> Html:
    """A table that scrolls horizontally in a narrow window.

    Args:
      numbers: the columns to align right.
      wide: in a narrow window, stack the cells of a row instead, each below its heading.
    """
    look = dict.fromkeys(numbers, "number")
    body = [
        tag("tr", *(tag("td", cell, class_=look.get(i), data_head=head[i] or None) for i, cell in enumerate(row)))
        for row in rows
    ]
    first = tag("tr", *(tag("th", cell, class_=look.get(i)) for i, cell in enumerate(head)))
    inside = tag("table", tag("thead", first), tag("tbody", *body), class_="wide" if wide else None)
    return tag("div", inside, class_="scroll")


def facts(pairs: Iterable[tuple[Any, Any]]) -> Html:
    """A list of names and values; pairs without a value are left out."""
    given = ((name, value) for name, value in pairs if value not in (None, ""))
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in given))


def tree(value: Any, name: str = "") -> Html:
    """A nested value with collapsible levels."""
    items = _items(value)
    if items is None:
        shown = strict_json.dumps(value) if not isinstance(value, str) else value
        return tag("div", tag("span", name, class_="key-name"), " ", tag("code", shown), class_="leaf")
    summary = tag("summary", tag("span", name, class_="key-name"), " ", dict(items).get("name"))
    return tag("details", summary, *(tree(inner, key) for key, inner in items))


def data(value: Any) -> Html:
    """A value for scripts, as a JSON element; `<` is escaped, so that no text in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Html(f'<script type="application/json">{text}</script>')


def page(title: str, contents: Iterable[tuple[str, str]], body: Iterable[Html]) -> str:
    """The whole page as text.

    Args:
      contents: the table of contents, as pairs (anchor, text).
      body: the content of the page.
    """
    links = [tag("a", text, href=f"#{anchor}") for anchor, text in contents]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(_file("page.css"))),
    )
    nav = tag("nav", tag("details", tag("summary", "Contents"), *links, open=True))
    scripts = [tag("script", Html(text)) for text in (get_plotlyjs(), _file("page.js"))]
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', nav, tag('main', *body), *scripts), lang='en')}\n"


def _file(name: str) -> str:
    return resources.files("plasticity_jax.analysis.report").joinpath(name).read_text()


def _attribute(key: str, value: Any) -> str:
    key = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'


def _items(value: Any) -> list[tuple[str, Any]] | None:
    """The named items of a nested value; None for a leaf, such as a list of numbers or names."""
    if isinstance(value, dict):
        return [(str(key), inner) for key, inner in value.items()]
    if isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        return [(str(i), inner) for i, inner in enumerate(value)]
    return None
