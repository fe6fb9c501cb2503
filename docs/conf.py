import sys
from pathlib import Path

import trsvd

sys.path.insert(0, str(Path(__file__).parent))  # for the extension in mathml.py

project = "trsvd"
author = "The trsvd developers"
copyright = "2026, The trsvd developers"
version = release = trsvd.__version__

extensions = [
    "matplotlib.sphinxext.plot_directive",
    "mathml",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
]

source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "autolink"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
autodoc_class_signature = "mixed"

# Docstrings set other libraries' names, attributes and modules as code too. No inventory of another
# library is loaded: the build needs no network.
nitpick_ignore_regex = [
    ("py:obj", r"torch\..*"),
    ("py:obj", r"trsvd\.optim\.(schedules|torch)"),
    ("py:obj", r"([A-Z]\w+\.)?[a-z_]+"),
    ("py:obj", r"[A-Z]{2,}"),
]

html_math_renderer = "mathml"
plot_basedir = "figures"
plot_formats = ["svg"]
plot_html_show_formats = False
plot_html_show_source_link = False

html_theme = "furo"
html_title = "trsvd"
html_static_path = ["_static"]
html_css_files = ["trsvd.css"]
