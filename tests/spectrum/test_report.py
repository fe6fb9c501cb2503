"""The report: what it has, what it runs, and how it is written."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import trsvd
from trsvd.spectrum import Spectrum, spectrum_of, write_report
from trsvd.spectrum.report import QUANTITIES, as_document, as_html, as_json

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "{{data}} {{policy}}",
    "\u2028 \ud800 \x00 \x1b[31m",
    "&lt;b&gt; \" ' ` \\",
]


class Page(HTMLParser):
    """Elements of a page with their attributes, and the text of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts = [], {}
        self._inside = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag in ("script", "style"):
            self._inside = attributes.get("id", tag)

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside:
            self.texts[self._inside] = self.texts.get(self._inside, "") + data


def random(name="a", m=6, n=4, rng=0):
    return spectrum_of(np.random.default_rng(rng).standard_normal((m, n)), name)


def test_the_document_matches_by_name():
    document = as_document(
        {"x": [random("a"), random("b", rng=1)], "y": iter([random("c"), random("a", 9, 7)])},
        [{"vectors": 2}, {}],
    )
    assert [run["label"] for run in document["checkpoints"]] == ["x", "y"]
    assert document["checkpoints"][0]["skipped"] == {"vectors": 2}
    rows = {row["name"]: row["results"] for row in document["matrices"]}
    assert list(rows) == ["a", "b", "c"]
    assert [[bool(result) for result in row] for row in rows.values()] == [
        [True, True],
        [True, False],
        [False, True],
    ]
    assert [result["shape"] for result in rows["a"]] == [[6, 4], [9, 7]]
    spectrum = random("b", rng=1)
    for name in QUANTITIES:
        assert rows["b"][0][name] == getattr(spectrum, name)
    numbers, values = zip(*rows["b"][0]["decay"], strict=True)
    assert numbers == (1, 2, 3, 4)
    assert np.allclose(values, spectrum.values, rtol=1e-5)  # six digits are written


def test_all_quantities_are_in_the_document():
    fields = set(Spectrum.__dataclass_fields__) - {"name", "shape", "dtype", "values"}
    assert fields == set(QUANTITIES)


def test_two_matrices_of_one_name_are_refused():
    with pytest.raises(ValueError, match="'x' has two matrices named 'a'"):
        as_document({"x": [random(), random()]})


def test_what_is_not_finite_is_null():
    document = as_document({"x": [spectrum_of(np.full((2, 3), np.nan), "a")]})
    [result] = json.loads(as_json(document))["matrices"][0]["results"]
    assert result["finite"] is False
    assert all(result[name] is None for name in QUANTITIES)
    assert result["decay"] == []


def test_names_are_data():
    """No name makes an element, an attribute or a comment, and all come back as they were."""
    plain = Page(as_html(as_document({"run": [random("a")]})))
    document = as_document({HOSTILE[0]: [random(name) for name in HOSTILE]})
    text = as_html(document)
    page = Page(text)
    assert page.elements == plain.elements
    assert page.texts["script"] == plain.texts["script"]
    assert json.loads(page.texts["data"]) == document
    data = text[text.index('id="data">') + 10 : text.rindex("</script>\n<script>")]
    assert "<" not in data
    assert data.isascii()


def test_only_the_own_script_may_run():
    page = Page(as_html(as_document({"run": [random()]})))
    [policy] = [
        attributes["content"]
        for tag, attributes in page.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.texts[tag].encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    for tag, attributes in page.elements:
        assert not {name for name in attributes if name in {"src", "href", "style"}}, tag
        assert not [name for name in attributes if name.startswith("on")], tag
    own = page.texts["script"] + page.texts["style"]
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|url\(|@import", own)
    assert re.findall(r"https?://\S+", own) == [
        'http://www.w3.org/2000/svg";'
    ]  # a name, no address


def test_the_page_serves_keyboards_and_readers():
    page = Page(as_html(as_document({"run": [random()]})))
    script, style = page.texts["script"], page.texts["style"]
    assert "aria-sort" in script
    assert ":focus-visible" in style
    assert "prefers-color-scheme: dark" in style
    assert ("html", {"lang": "en"}) in page.elements
    assert any(attributes.get("name") == "viewport" for _, attributes in page.elements)
    assert any(attributes.get("aria-live") for _, attributes in page.elements)


# ---- writing --------------------------------------------------------------------------------


def test_files_are_not_replaced_without_being_asked(tmp_path):
    path = tmp_path / "r.html"
    write_report(path, {"run": [random()]})
    first = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"r\.html exists; choose another name"):
        write_report(path, {"run": [random("b")]})
    assert path.read_bytes() == first
    write_report(str(path), {"run": [random("b")]}, overwrite=True)
    assert b'"b"' in path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_run_leaves_nothing(tmp_path):
    def broken():
        yield random()
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_report(tmp_path / "r.html", {"run": broken()})
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "none" / "r.html", {"run": [random()]})
    assert list(tmp_path.iterdir()) == []


def test_the_template_is_in_the_wheel(tmp_path):
    build = pytest.importorskip("hatchling.builders.wheel")
    root = Path(trsvd.__file__).parent.parent
    if not (root / "pyproject.toml").is_file():
        pytest.skip("needs the sources of the package")
    [wheel] = build.WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        assert "trsvd/spectrum/report.html" in archive.namelist()


# ---- in a browser ---------------------------------------------------------------------------


@pytest.fixture
def rendered(tmp_path):
    """The page after its script has run, as a browser has it."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if browser is None:
        pytest.skip("needs chromium")

    def render(checkpoints):
        path = tmp_path / "r.html"
        write_report(path, checkpoints)
        command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
        done = subprocess.run(
            [*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
        return Page(done.stdout), done.stdout

    return render


@pytest.mark.slow
def test_a_browser_shows_the_names_and_runs_nothing_else(rendered):
    page, text = rendered(
        {"one": [random(name) for name in (HOSTILE[0], "layer.0.w", "layer.1.w")]}
    )
    tags = [tag for tag, _ in page.elements]
    assert "img" not in tags
    assert tags.count("tr") == 4 + 8 + 2  # matrices with head, the chosen one, layers with head
    assert "&lt;/script&gt;&lt;" in text
    assert [a["aria-sort"] for tag, a in page.elements if "aria-sort" in a] == ["none"] * 9
    assert "3 of 3 matrices" in text


@pytest.mark.slow
def test_a_browser_compares_checkpoints(rendered):
    bad = spectrum_of(np.full((4, 5), np.nan), "bad")
    page, text = rendered({"one": [random("a"), bad], "two": [random("a", rng=1)]})
    assert text.count(">not finite<") == 1
    assert "Not finite (NaN or infinite entries): bad." in text
    assert "stable rank over the checkpoints" in text
    assert "last / first" in text
