"""A molecular liquid: 60 water molecules with GFN2-xTB; whole molecules, and a correction by GFN1-xTB."""

from functools import partial

from ase.io import write
from parts import Result, known_target, model, xtb

from amp.nft.activelearner import NFT

RADIUS = 5.0  # Å


def main() -> None:
    """Learn the forces, and compare with the parent's forces on the whole drop."""
    result = Result("liquid")
    atoms, true = known_target("H2O60", "forces_gfn2")
    write("target.traj", atoms)
    al = NFT(method="robust", stop_delta=0.2, max_iterations=3, seed=0)
    al.run(images=None, target_image="target.traj", n=10, calc_text=model(atoms.symbols, 5.0), parent_calc=partial(xtb, method="GFN2-xTB"),
           cutoff=RADIUS, correction=xtb, aim=0.1)  # fmt: skip
    result.finish(al, atoms, true)


if __name__ == "__main__":
    main()
