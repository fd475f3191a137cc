from importlib.metadata import version

import numpy as np

from amp.nft.system.packages import versions


def test_versions_are_those_of_the_installed_packages():
    found = versions()
    assert list(found) == ["python", "amp-nft", "amp-atomistics", "numpy", "ase", "numba"]
    assert found["amp-atomistics"] == "1.0.1" and found["numpy"] == np.__version__ and found["amp-nft"] == version("amp-nft")


def test_amp_that_its_authors_distribution_installed_has_its_version(tmp_path, monkeypatch):
    metadata = tmp_path / "amp_atomistics-1.0.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: amp-atomistics\nVersion: 1.0.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert versions()["amp-atomistics"] == "1.0.0"
