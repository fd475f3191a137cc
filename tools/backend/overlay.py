"""setuptools' build backend with an editable install that works inside another distribution's package.

Amp owns the packages `amp` and `amp.nft`, so no path entry can bring our source tree in under these names.
An editable wheel of ours holds, for each module and package of amp/nft, a file of the same name that loads
the one in the source tree.  A module that is new there is seen after the next install.
"""

import os
import shutil
import tempfile
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

# What goes into sys.modules under this name is what the import statement returns.
STUB = """\
import sys
from importlib.util import module_from_spec, spec_from_file_location

spec = spec_from_file_location(__name__, {source!r}, submodule_search_locations={folders!r})
sys.modules[__name__] = module_from_spec(spec)
spec.loader.exec_module(sys.modules[__name__])
"""


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """Build the ordinary wheel, of a tree in which every module is a stub."""
    root, target = Path.cwd(), os.path.abspath(wheel_directory)
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("pyproject.toml", "setup.py", "README.rst", "LICENSE"):
            shutil.copy(root / name, scratch)
        for source in [*root.glob("amp/nft/*.py"), *root.glob("amp/nft/*/__init__.py")]:
            write_stub(Path(scratch, source.relative_to(root)), source)
        os.chdir(scratch)
        try:
            return build_meta.build_wheel(target, config_settings)
        finally:
            os.chdir(root)


def write_stub(path, source):
    """Write to `path` a module that loads `source`."""
    folders = [str(source.parent)] if source.name == "__init__.py" else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STUB.format(source=str(source), folders=folders), encoding="utf-8")


def prepare_metadata_for_build_editable(metadata_directory, config_settings=None):
    """Metadata are those of the ordinary wheel."""
    return build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def get_requires_for_build_editable(config_settings=None):
    """Nothing but what the ordinary wheel needs."""
    return build_meta.get_requires_for_build_wheel(config_settings)
