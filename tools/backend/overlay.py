"""setuptools' build backend with an editable install that works inside another distribution's package.

Amp owns the packages `amp` and `amp.nft`, so no path entry can bring our source tree in under these names.
An editable wheel of ours holds, for each module and package of amp/nft, a file of the same name that loads
the one in the source tree.  A module that is new there is seen after the next install.

Wheels are built from a scratch tree: in the checkout setuptools would include files of an earlier build.
"""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import build_sdist

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

# What stands in sys.modules at the end is what the import statement returns.
STUB = """\
import sys
from importlib.util import module_from_spec, spec_from_file_location

spec = spec_from_file_location(__name__, {source!r}, submodule_search_locations={folders!r})
sys.modules[__name__] = module_from_spec(spec)
spec.loader.exec_module(sys.modules[__name__])
"""


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Build the ordinary wheel: a copy of each module, and the mark that they have types."""
    wheel_directory = os.path.abspath(wheel_directory)
    with scratch_tree(["amp/nft/**/*.py", "amp/nft/py.typed"], shutil.copyfile):
        return build_meta.build_wheel(wheel_directory, config_settings)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """Build the wheel of an editable install: a stub, which has no types, for each module and each package's ``__init__``."""
    wheel_directory = os.path.abspath(wheel_directory)
    with scratch_tree(["amp/nft/*.py", "amp/nft/*/__init__.py"], write_stub):
        return build_meta.build_wheel(wheel_directory, config_settings)


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    """Metadata do not depend on the modules."""
    metadata_directory = os.path.abspath(metadata_directory)
    with scratch_tree([], shutil.copyfile):
        return build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


@contextmanager
def scratch_tree(patterns, place):
    """Work in a new folder that holds the project's files and, by `place(source, target)`, these modules."""
    root = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("pyproject.toml", "setup.py", "README.rst", "LICENSE"):
            shutil.copy(root / name, scratch)
        for source in (source for pattern in patterns for source in root.glob(pattern)):
            target = Path(scratch, source.relative_to(root))
            target.parent.mkdir(parents=True, exist_ok=True)
            place(source, target)
        os.chdir(scratch)
        try:
            yield
        finally:
            os.chdir(root)


def write_stub(source, target):
    """Write a module to `target` that loads `source`."""
    folders = [str(source.parent)] if source.name == "__init__.py" else None
    target.write_text(STUB.format(source=str(source), folders=folders), encoding="utf-8")
