"""Learn the forces on a platinum cluster of 260 atoms from bulk cells and small chunks, with EMT as the parent.

It writes best.al.ensemble and the directory al-training/ into the working directory.
Run it again to resume where it stopped.
"""

import numpy as np
from ase.calculators.emt import EMT
from ase.io import write
from structures import initial_images, pt260

from amp.nft.activelearner import NFT

calc_text = """
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.nft.features import g2x

calc = Amp(descriptor=Gaussian(cutoff=6.5, Gs=g2x(['Pt'])),
           model=NeuralNetwork(hiddenlayers=(5, 5)),
           dblabel='../amp-db')
calc.model.lossfunction = LossFunction(
    force_coefficient=0.04, maxiter=3000,
    convergence={'energy_rmse': 0.001, 'force_rmse': 0.005, 'force_maxresid': 0.02})
"""


def main() -> None:
    """Train, then compare with EMT's forces on the whole cluster, which no training used."""
    write("initial_images.traj", initial_images(EMT()))
    write("pt260.traj", pt260())
    al = NFT(stop_delta=0.02, max_iterations=20, steps_not_improved=2, threshold=-0.9)
    al.run(images="initial_images.traj", target_image="pt260.traj", n=10, calc_text=calc_text,
           start_command="python run.py", parent_calc=EMT(), cutoff=6.5)  # fmt: skip

    from amp.nft.calculator import EnsembleCalculator

    target = pt260()
    target.calc = EnsembleCalculator("best.al.ensemble")
    true = pt260()
    true.calc = EMT()
    errors = np.linalg.norm(target.get_forces() - true.get_forces(), axis=1)
    print(f"\nForce errors against EMT on all {len(target)} atoms: mean {errors.mean():.4f}, max {errors.max():.4f} eV/Å.")


if __name__ == "__main__":
    main()
