"""Sphinx configuration: `uv run --group docs sphinx-build -W docs docs/_build`."""

import shutil
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

project = "amp.nft"
author = "the authors of amp.nft"
copyright = "the authors of amp.nft; GPL-3.0-or-later"
version = release = version_of("amp-nft")

extensions = ["sphinx.ext.autodoc", "numpydoc", "sphinx_gallery.gen_gallery", "sphinx.ext.githubpages"]
exclude_patterns = ["_build", "_gallery", "tutorials", "tutorial/index.rst", "tutorial/sg_execution_times.rst", "sg_execution_times.rst"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wrap.css"]
html_math_renderer = "mathml"  # equations show without a network
html_title = f"amp.nft {release}"

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # autodoc shows them already
numpydoc_class_members_toctree = False

here = Path(__file__).parent
sys.path.insert(0, str(here))
from levels import draw_levels  # noqa: E402

draw_levels(here.parent / "CONTRIBUTING.rst", here / "_generated" / "levels.svg")

# A tutorial leaves a run's files in its directory, and would resume that run: it runs in a fresh copy of its directory.
shutil.rmtree(here / "_gallery", ignore_errors=True)
shutil.copytree(here / "tutorials", here / "_gallery")
sphinx_gallery_conf = {
    "examples_dirs": "_gallery",
    "gallery_dirs": "tutorial",
    "filename_pattern": r"\.py$",
    "abort_on_example_error": True,
    "show_memory": False,
    "capture_repr": (),
    "download_all_examples": False,
    "run_stale_examples": True,  # the page shows results of this version
    "remove_config_comments": True,
}


def inline_math(writer, node):
    """Write a formula within a line as MathML."""
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def displayed_math(writer, node):
    """Write a displayed formula as MathML."""
    writer.body.append(f'<div class="math" style="overflow-x: auto">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app):
    """Register the writers of formulas; Sphinx's own fetches a script from the network."""
    app.add_html_math_renderer("mathml", (inline_math, None), (displayed_math, None))
