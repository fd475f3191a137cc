"""Molecules on a surface: CO and H2O on magnesium oxide with GFN1-xTB; first images of the molecules on small clusters."""

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from parts import Result, known_target, model, xtb

from amp.nft.activelearner import NFT

RADIUS, TERMINATION = 6.5, "neutral"  # Å
MOLECULES = ("CO", "H2O")


def first_images(n: int = 12, seed: int = 0) -> list[Atoms]:
    """Return molecules alone and on a cluster of eight MgO, rattled, with energies and forces of the parent."""
    rng = np.random.default_rng(seed)
    block = bulk("MgO", "rocksalt", a=4.21, cubic=True).repeat((2, 1, 1))
    block.pbc = False
    images = []
    for name in MOLECULES:
        for k in range(n):
            free = molecule(name)
            free.rotate(360 * rng.random(), rng.normal(size=3))
            free.translate(
                [*(block.positions[rng.integers(len(block)), :2]), block.positions[:, 2].max() + rng.uniform(2.0, 3.5)] - free.positions[0]
            )
            image = block + free if k % 3 else free
            image.rattle(0.08, seed=int(rng.integers(1 << 31)))
            image.calc = xtb("")
            if np.abs(image.get_forces()).max() < 15:  # eV/Å; nearer than any molecule of the target
                images.append(image)
    return images


def main() -> None:
    """Learn the forces, and compare with the parent's forces on the whole target."""
    result = Result("adsorbate")
    atoms, true = known_target("MgO108_CO_H2O")
    write("target.traj", atoms)
    images = first_images()
    result.say(f"{len(images)} first images of {min(map(len, images))} to {max(map(len, images))} atoms.")
    write("first_images.traj", images)
    al = NFT(method="robust", stop_delta=0.2, max_iterations=3, seed=0)
    al.run(images="first_images.traj", target_image="target.traj", n=10, calc_text=model(atoms.symbols, 5.5), parent_calc=xtb,
           cutoff=RADIUS, termination=TERMINATION, aim=0.1)  # fmt: skip
    molecules = np.arange(len(atoms)) >= 108
    result.finish(al, atoms, true, {"molecules": molecules})


if __name__ == "__main__":
    main()
