"""The site made of this folder: pip install -e '.[docs]' && sphinx-build -W docs site, then open site/index.html."""

from typing import Any

project = "hidden_subnet"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = project
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
root_doc = "index"
myst_heading_anchors = 3
autodoc_typehints = "description"
default_role = "code"  # our docstrings write `code` as Markdown does


def setup(app: Any) -> None:
    """Let the stars of our docstrings, as in (B, *shape), be stars."""

    def plain(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
        lines[:] = [line.replace("*", r"\*") for line in lines]

    app.connect("autodoc-process-docstring", plain)
