"""Sphinx extension: write formulas as MathML, which browsers render without a script or network."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

_log = logging.getLogger(__name__)


def _mathml(node: nodes.math | nodes.math_block, display: str) -> str:
    text = convert(node.astext(), display=display)
    if "\\" in text:
        _log.warning("latex2mathml does not know a command in %r", node.astext(), location=node)
    return text


def _visit_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(_mathml(node, "inline"))
    raise nodes.SkipNode


def _visit_displaymath(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{_mathml(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer under the name "mathml"."""
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
