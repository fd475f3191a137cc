"""The script of the documentation, on a platinum cluster of 55 atoms, with EMT as the parent."""

from ase.calculators.emt import EMT
from ase.io import write
from structures import initial_images, pt55

from amp.nft.activelearner import NFT

write("initial_images.traj", initial_images(EMT()))
write("pt55.traj", pt55())

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

al = NFT(stop_delta=0.02, max_iterations=20, steps_not_improved=2, threshold=-0.9)
al.run(images='initial_images.traj', target_image='pt55.traj', n=4, calc_text=calc_text,
       start_command='python run.py', parent_calc=EMT(), cutoff=6.5)  # fmt: skip
