"""Which files are ours: everything under amp/nft, and nothing on a path that Amp has.

`amp/` and `amp/nft/` hold no __init__.py here: those belong to Amp.  Where Amp has a module of the same name
(activelearner.py, initialization.py) ours is a package, and of the two Python takes the package.
"""

from setuptools import find_namespace_packages, setup

setup(packages=find_namespace_packages(include=["amp.nft*"]), package_data={"amp.nft": ["py.typed"]})
