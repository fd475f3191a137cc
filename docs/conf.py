"""Sphinx configuration: `uv run --group docs sphinx-build -W docs docs/_build`."""

from importlib.metadata import version as version_of

project = "amp.nft"
author = "the authors of amp.nft"
copyright = "the authors of amp.nft; GPL-3.0-or-later"
version = release = version_of("amp-nft")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.mathjax", "numpydoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"amp.nft {release}"

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
numpydoc_show_class_members = False      # autodoc shows them already
numpydoc_class_members_toctree = False
