"""Files of the package: everything under amp/nft, and nothing on a path that Amp has.

`amp/` and `amp/nft/` contain no __init__.py here: those belong to Amp.  Where Amp has a module of the same name
(activelearner.py, initialization.py), this project has a package, which Python prefers to the module.
"""

from setuptools import find_namespace_packages, setup

setup(packages=find_namespace_packages(include=["amp.nft*"]), package_data={"amp.nft": ["py.typed"]})
