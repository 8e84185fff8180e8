"""The site of the documentation; `make docs` builds it into docs/_build/html."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "vexplain"
author = "the vexplain developers"
release = version = version_of("vexplain")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docstrings",  # the ones from here on are in _ext
    "libraries",
    "mathml",
    "methods",
    "rooms",
    "signatures",
]
exclude_patterns = ["_build"]
html_math_renderer = "mathml"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes stand in the text; the annotations of jaxtyping are too long to read
add_module_names = False
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "py:obj"  # `name` in a docstring is a link where there is something to link to
nitpicky = True
nitpick_ignore_regex = [("py:obj", ".*"), ("py:class", ".*")]  # code in backticks that is no name; bases

html_theme = "furo"
html_title = "vexplain"
html_static_path = ["_static"]
html_css_files = ["vexplain.css"]
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_copyright = False
