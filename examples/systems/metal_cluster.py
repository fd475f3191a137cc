"""A metal cluster: 147 magnesium atoms with GFN1-xTB; which radius, then what 35 labels give."""

from ase.io import write
from parts import Result, known_target, model, xtb

from amp.nft.activelearner import NFT
from amp.nft.chunks import convergence

RADIUS = 6.5  # Å


def main() -> None:
    """Scan the radius on eight atoms, learn the forces, and compare with the parent's forces on the whole cluster."""
    result = Result("metal_cluster")
    atoms, true = known_target("Mg147")
    scan = convergence(atoms, xtb, radii=(5.0, 6.5, 8.0), atoms=8, directory="scan")
    result.say(scan)
    write("target.traj", atoms)
    al = NFT(method="robust", stop_delta=0.05, max_iterations=3, seed=0)
    al.run(images=None, target_image="target.traj", n=10, calc_text=model(atoms.symbols, 5.5, (5, 5)), parent_calc=xtb,
           cutoff=RADIUS, aim=0.05)  # fmt: skip
    result.finish(al, atoms, true)


if __name__ == "__main__":
    main()
