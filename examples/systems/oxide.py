"""An oxide: 100 atoms of magnesium oxide with GFN1-xTB; radius and termination, then what 32 labels give."""

from ase.io import write
from parts import Result, known_target, model, xtb

from amp.nft.activelearner import NFT
from amp.nft.chunks import convergence

RADIUS, TERMINATION = 6.5, "sphere"  # Å


def main() -> None:
    """Compare radii and terminations, learn the forces, and compare with the parent's forces on the whole particle."""
    result = Result("oxide")
    atoms, true = known_target("Mg50O50")
    scan = convergence(atoms, xtb, radii=(5.0, 6.5, 8.0), atoms=8, terminations=["sphere", "neutral"], directory="scan")
    result.say(scan)
    write("target.traj", atoms)
    al = NFT(method="robust", stop_delta=0.1, max_iterations=2, seed=0)
    al.run(images=None, target_image="target.traj", n=10, calc_text=model(atoms.symbols, 5.5), parent_calc=xtb, cutoff=RADIUS,
           termination=TERMINATION, aim=0.1)  # fmt: skip
    result.finish(al, atoms, true)


if __name__ == "__main__":
    main()
