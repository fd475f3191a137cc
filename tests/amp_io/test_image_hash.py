"""The name of an image is that which Amp gives it."""

import numpy as np
import pytest
from amp.utilities import get_hash
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from amp.nft.amp_io.image_hash import image_hash


def rattled(seed):
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 60)
    positions = rng.normal(size=(n, 3)) * 10.0 ** rng.integers(-18, 8, (n, 1))
    return Atoms(rng.integers(1, 119, n), positions, cell=rng.normal(size=(3, 3)), pbc=rng.integers(0, 2, 3))


IMAGES = [molecule("CH3CH2OH"), bulk("Pt"), fcc111("Cu", (2, 2, 2), vacuum=5.0), Atoms(), Atoms("Og", positions=[[-0.0, 1e20, 5e-324]])]


@pytest.mark.parametrize("image", [*IMAGES, *map(rattled, range(20))], ids=str)
def test_hash_is_that_of_amp(image):
    assert image_hash(image) == get_hash(image)


def test_other_places_have_another_hash():
    image = molecule("H2O")
    before = image_hash(image)
    image.positions[2, 1] += 2e-15
    assert image_hash(image) != before
