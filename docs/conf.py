"""How Sphinx builds this site: ``python -m sphinx -W docs docs/_build/html``.

Needs the ``docs`` extra, and no network.
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_extensions"))

import matplotlib  # noqa: E402
from extras import extras_table  # noqa: E402
from results import substitutions  # noqa: E402

import flatstep  # noqa: E402

matplotlib.use("agg")

project = "flatstep"
author = "The flatstep authors"
project_copyright = author
version = release = flatstep.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "mathml",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "gallery/GALLERY_HEADER.rst", "gallery/*.py", "**sg_execution_times.rst"]
nitpicky = True

# Text files of our own: a name and its page, so that links to other projects need no network when this site is built.
intersphinx_mapping = {
    name: (url, str(ROOT / "docs" / "inventories" / f"{name}.txt"))
    for name, url in {
        "python": "https://docs.python.org/3",
        "numpy": "https://numpy.org/doc/stable",
        "torch": "https://docs.pytorch.org/docs/stable",
    }.items()
}
# Type variables and classes that have no page here.
nitpick_ignore_regex = [
    (r"py:.*", r"(.*\.)?(_Params|_State|ArrayTree|_jax\.Array|GradientTransformation|FrozenDict)"),
]

myst_enable_extensions = ["dollarmath", "substitution"]
myst_heading_anchors = 3
myst_substitutions = {**substitutions(ROOT / "bench" / "results"), "extras": extras_table(ROOT / "pyproject.toml")}

autodoc_typehints = "signature"
ALIASES = ("PerLeaf", "Scalar", "ScalarOrSchedule", "DTypeLike", "Number", "PyTree", "ParamsT", "FilePath")
autodoc_type_aliases = {name: name for name in ALIASES}  # by their names, not by what they stand for
autodoc_member_order = "bysource"
maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples" / "gallery"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "copyfile_regex": r".*\.json",
    "download_all_examples": False,
    "show_signature": False,
    "abort_on_example_error": True,
    "capture_repr": (),
    "write_computation_times": False,
}


def setup(app):
    """Type aliases are shown by their names; Sphinx leaves a word of its own around one in a union."""
    app.connect(
        "autodoc-process-signature",
        lambda app, what, name, obj, options, signature, returns: (
            re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", signature or "") or None,
            returns,
        ),
    )


# Agg shows no window, and says so where a script calls plt.show().
warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")

highlight_language = "none"
html_theme = "furo"
html_title = f"flatstep {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
