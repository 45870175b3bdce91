"""Formulas as MathML, which browsers draw themselves: no script and no network. A Sphinx extension, used by conf.py."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import SphinxError


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the renderer: ``html_math_renderer = "mathml"``."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(_mathml(node, as_block=False))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{_mathml(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, as_block: bool) -> str:
    formula = node.astext().strip().replace("\\Big", "")  # a size, which MathML chooses by itself
    try:
        return str(tex2mathml(formula, as_block=as_block))
    except MathError as error:
        raise SphinxError(f"a formula cannot be written as MathML: {error}\n{formula}") from None
