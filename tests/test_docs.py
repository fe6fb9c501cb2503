"""The documentation needs no network: formulas are MathML, and the build draws the figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
CONF = """
extensions = ["mathml", "myst_parser"]
myst_enable_extensions = ["dollarmath"]
html_math_renderer = "mathml"
html_theme = "basic"
"""


def built(folder, text, monkeypatch):
    """Return the HTML of a page, and the warnings of its build."""
    application = pytest.importorskip("sphinx.application")
    pytest.importorskip("latex2mathml")
    pytest.importorskip("myst_parser")
    monkeypatch.syspath_prepend(str(DOCS))
    (folder / "conf.py").write_text(CONF, encoding="utf-8")
    (folder / "index.md").write_text(f"# A page\n\n{text}\n", encoding="utf-8")
    warnings = (folder / "warnings").open("w+", encoding="utf-8")
    with warnings:
        out = folder / "html"
        application.Sphinx(
            folder, folder, out, folder / "doctrees", "html", status=None, warning=warnings
        ).build()
        warnings.seek(0)
        found = warnings.read()
    return (out / "index.html").read_text(encoding="utf-8"), found


@pytest.mark.filterwarnings("default")
def test_formulas_are_written_into_the_page(tmp_path, monkeypatch):
    page, warnings = built(tmp_path, "$s_1$ and\n\n$$ \\sqrt{x} \\le \\|A\\| $$", monkeypatch)
    assert len(re.findall(r"<math [^>]*display=\"inline\"", page)) == 1
    assert len(re.findall(r"<math [^>]*display=\"block\"", page)) == 1
    assert "<msqrt>" in page
    assert not warnings
    assert not re.search(r"<(script|link|img)[^>]*\"https?://", page)


@pytest.mark.filterwarnings("default")
def test_an_unknown_command_is_a_warning(tmp_path, monkeypatch):
    _, warnings = built(tmp_path, r"$\nosuchcommand x$", monkeypatch)
    assert "latex2mathml does not know a command" in warnings


def test_each_figure_is_on_a_page():
    pages = "\n".join(
        path.read_text(encoding="utf-8")
        for path in DOCS.rglob("*.md")
        if "_build" not in path.relative_to(DOCS).parts
    )
    scripts = {path.name for path in (DOCS / "figures").glob("*.py")}
    assert scripts
    assert set(re.findall(r"^\.\. plot:: (\S+)$", pages, re.M)) == scripts
