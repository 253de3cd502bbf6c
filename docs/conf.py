"""How Sphinx makes the site: `make docs`. The pages are Markdown that GitHub shows as well."""

import re
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

ROOT = Path(__file__).resolve().parents[1]
(VERSION,) = re.findall(r'^VERSION = "(.*)"', next(ROOT.glob("src/**/version.py")).read_text(), re.MULTILINE)

project = "QTRAN"
author = "the authors of this project"
release = version = VERSION
html_title = f"QTRAN {VERSION}"

# The root of the repository is the source, so that pages outside docs/ can be pages of the site and links lead to them.
root_doc = "docs/index"
include_patterns = ["docs/**", "bench/README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = ["docs/conf.py"]
extensions = ["myst_parser", "sphinxcontrib.mermaid"]
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math", "mermaid"]  # GitHub shows ```math and ```mermaid too
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["site.css"]

linkcheck_timeout = 15
linkcheck_retries = 2
linkcheck_anchors = False  # pages that a script fills have none
linkcheck_ignore = [r"http://127\.0\.0\.1", r"http://localhost"]


def inline_math(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block_math(self: HTML5Translator, node: nodes.math_block) -> None:
    formula = convert(node.astext(), display="block")
    self.body.append(self.starttag(node, "div", CLASS="formula") + formula + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Formulas become MathML, which browsers show without a script and without a network."""
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))


html_math_renderer = "mathml"
