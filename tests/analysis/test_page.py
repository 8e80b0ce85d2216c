"""HTML from Python: text never becomes markup, and a page needs no other file."""

import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from plasticity_jax.analysis.report import page
from plasticity_jax.analysis.report.page import Html, tag

NASTY = """<b>"&'</b></script><script>alert(1)</script>"""


class Reader(HTMLParser):
    """Collects the tags with their attributes, and the text, as a browser would."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_tags_nest_and_name_their_attributes():
    made = tag("p", "one ", tag("b", 2), None, class_="x", data_name="y", hidden=True, id=None, open=False)
    assert made == '<p class="x" data-name="y" hidden>one <b>2</b></p>'
    assert tag("meta", name="viewport") == '<meta name="viewport">'


@pytest.mark.parametrize(
    "made",
    [
        tag("p", NASTY),
        tag("p", title=NASTY),
        page.join([NASTY]),
        page.table([NASTY], [[NASTY]]),
        page.facts([(NASTY, NASTY)]),
        page.tree({NASTY: NASTY, "name": NASTY, "inner": [{NASTY: [NASTY]}]}, NASTY),
        page.data({NASTY: NASTY}),
    ],
)
def test_text_is_never_markup(made):
    assert isinstance(made, Html)
    read = Reader(made)
    assert not {"b", "script"} & {name for name, _ in read.tags[1:]}  # page.data is itself a script
    assert len(re.findall("</?script", made)) in (0, 2)


def test_escaped_text_reads_as_it_was():
    read = Reader(tag("p", NASTY, title=NASTY))
    assert read.text == read.tags[0][1]["title"] == NASTY


def test_data_is_json_that_stays_inside_its_element():
    value = {NASTY: [1.5, None, "\N{GREEK SMALL LETTER GAMMA}"]}
    made = page.data(value)
    inner = made.removeprefix('<script type="application/json">').removesuffix("</script>")
    assert "<" not in inner
    assert json.loads(inner) == value


def test_data_refuses_what_is_no_json():
    with pytest.raises(ValueError):
        page.data(float("nan"))


def test_a_table_aligns_numbers_and_stacks_where_it_is_wide():
    made = page.table(["name", "n"], [["a", 1]], numbers=[1])
    assert made.count('class="number"') == 2
    assert 'class="wide"' not in made
    read = Reader(page.table(["name", ""], [["a", 1]], wide=True))
    assert [seen.get("data-head") for name, seen in read.tags if name == "td"] == ["name", None]
    assert ("table", {"class": "wide"}) in read.tags


def test_facts_without_a_value_are_left_out():
    assert page.facts([("a", 1), ("b", None), ("c", "")]).count("<dt>") == 1


def test_a_tree_folds_what_is_nested_and_names_it():
    read = Reader(page.tree({"width": 8, "seeds": [0, 1], "optim": {"name": "adam", "b": [{"b1": 0.9}]}}, "pack"))
    assert [name for name, _ in read.tags if name == "details"] == ["details"] * 4
    assert "optim adamname adam" in read.text
    assert "seeds [0, 1]" in read.text
    assert not any("open" in seen for _, seen in read.tags)


def test_an_installed_package_has_the_files_of_the_page():
    root = Path(page.__file__).parent
    project = tomllib.loads((root.parents[1] / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"]["plasticity_jax.analysis.report"] == ["page.css", "page.js"]
    assert sorted(path.name for path in root.glob("page.*")) == ["page.css", "page.js", "page.py"]


def test_a_page_carries_everything_and_forbids_requests():
    made = page.page(NASTY, [("part", "Part <1>")], [tag("section", id="part")])
    head, body = made.split("<body>")
    read = Reader(head)
    policy = [seen for name, seen in read.tags if seen.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0]["content"].startswith("default-src 'none';")
    assert "http" not in policy[0]["content"]
    assert "max-width" in head  # the style
    assert '<a href="#part">Part &lt;1&gt;</a>' in body
    assert "Plotly" in body and "newPlot" in body
    assert body.count("</script>") == 2  # no script closes another
    outside = Reader(re.sub(r"<(script|style)\b.*?</\1>", "", made, flags=re.DOTALL))
    assert not [seen for _, seen in outside.tags if {"src", "srcset", "action"} & set(seen)]
    assert not [name for name, _ in outside.tags if name in ("link", "img", "iframe", "object")]
    assert all(seen["href"].startswith("#") for _, seen in outside.tags if "href" in seen)
