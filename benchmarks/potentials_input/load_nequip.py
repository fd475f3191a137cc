"""Load a checkpoint of NequIP as an ASE calculator, without compiling it."""

import warnings


def load(path):
    import torch
    from nequip.integrations.ase import NequIPCalculator

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return NequIPCalculator._from_saved_model(path, chemical_species_to_atom_type_map=True)
