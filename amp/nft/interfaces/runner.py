"""Members of an ensemble as files of RuNNer, which n2p2 and CP2K also read: input.nn, scaling.data, weights.NNN.data.

Formats: J. Behler, *RuNNer*, https://theochem.gitlab.io/runner; A. Singraber, J. Behler, C. Dellago, J. Chem. Theory Comput. 15, 1827
(2019).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.data import atomic_numbers
from ase.units import Bohr, Hartree

from amp.nft.amp_io import AmpModel, read_ensemble
from amp.nft.amp_io.committee_file import refuse_committee
from amp.nft.errors import InputError, UnsupportedModel
from amp.nft.inputs.arguments import check_new
from amp.nft.interfaces.pair_baseline import refuse_baseline
from amp.nft.system import files

UNITS = {"metal": (1.0, 1.0), "atomic": (Bohr, Hartree)}  # length and energy, in Å and eV
_LETTERS = {"tanh": "t", "sigmoid": "s", "linear": "l"}
_TYPES = {"G2": 2, "G4": 3, "G5": 9}
_SMALLEST_RANGE = 1e-8  # Amp leaves inputs alone that vary less
_TRANSITION = 2.0  # gamma of Amp's polynomial cutoff that is RuNNer's: 1 - 3 x^2 + 2 x^3


class _Function(NamedTuple):
    """A symmetry function: sort key of n2p2, its number in the model, its line."""

    key: tuple[float, ...]
    number: int
    line: str


def write_runner(
    ensemble: str | os.PathLike[str] | Sequence[AmpModel], directory: str | os.PathLike[str], *, units: str = "metal"
) -> list[Path]:
    """Write each member of an ensemble as a potential of RuNNer and n2p2.

    Parameters
    ----------
    ensemble : path, or sequence of AmpModel
        An ``.ensemble`` file, or models with the same elements, symmetry functions, cutoff and layers.
    directory : path
        Gets a directory ``member-000``, ... for each member, with ``input.nn``, ``scaling.data`` and a ``weights.NNN.data`` for each
        element, where NNN is its atomic number. It must not have these directories.
    units : {'metal', 'atomic'}
        Å and eV, for LAMMPS with ``pair_style hdnnp`` (n2p2) in ``units metal``; or Bohr and Hartree, for RuNNer and CP2K.

    Returns
    -------
    list of Path
        The directories.

    Raises
    ------
    UnsupportedModel
        The format cannot express a model; the message names the part.
    InputError
        `units` is not one of these, or a directory exists.
    AmpFileError, FileNotFoundError
        The file is not an ensemble, or is missing.

    Notes
    -----
    ``input.nn`` and ``scaling.data`` are the same for all members, as CP2K requires for a committee: ranges of fingerprints are the
    union of those of the members, and the weights of the first layer compensate for it. Amp applies the activation to the output
    node too, and multiplies by a slope; here that node is a hidden layer, and slope and intercept are the weights of the output.
    """
    if units not in UNITS:
        raise InputError(f"units = {units!r} must be one of {', '.join(map(repr, UNITS))}.")
    refuse_committee(ensemble, "the format of RuNNer describes networks of Amp", "Keep the models, or export the labels of the run.")
    models = read_ensemble(ensemble) if isinstance(ensemble, str | os.PathLike) else list(ensemble)
    if not models:
        raise InputError("ensemble has no member: give at least one model.")
    refuse_baseline(models, "the format of RuNNer")
    for member, model in enumerate(models):
        _check(model, models[0], f"member {member}")
    paths = [Path(directory) / f"member-{member:03d}" for member in range(len(models))]
    for path in paths:
        check_new(path, "directory")
    texts = [_texts(models, model, *UNITS[units]) for model in models]
    for path, found in zip(paths, texts, strict=True):
        path.mkdir(parents=True)
        for name, text in found.items():
            files.write(path / name, text.encode())
    return paths


def _check(model: AmpModel, first: AmpModel, name: str) -> None:
    """Raise UnsupportedModel unless the format can express the model with the common files of all members."""
    for part in ("elements", "gs", "cutoff", "hiddenlayers", "activation"):
        if getattr(model, part) != getattr(first, part):
            raise UnsupportedModel(f"{name} has other {part} than member 0: all members need the same. Export them one by one.")
    gamma = model.cutoff["kwargs"].get("gamma", _TRANSITION)
    if gamma != _TRANSITION:
        raise UnsupportedModel(
            f"{name} has Amp's polynomial cutoff with gamma = {gamma:g}: RuNNer and n2p2 have gamma = {_TRANSITION:g} alone. "
            f"Train with Cosine, or with Polynomial(gamma={_TRANSITION:g})."
        )
    depths = {element: len(nodes) for element, nodes in model.hiddenlayers.items()}
    if len(set(depths.values())) > 1:
        raise UnsupportedModel(
            f"{name} has other numbers of hidden layers for each element ({depths}): RuNNer and n2p2 need the same. "
            "Train with the same number of hidden layers for all elements."
        )
    for element, functions in model.gs.items():
        if wide := [function for function in functions if abs(function.get("gamma", 0.0)) > 1.0]:
            raise UnsupportedModel(
                f"{name} has gamma = {wide[0]['gamma']:g} in a {wide[0]['type']} of {element}: n2p2 and CP2K replace powers of negative "
                "numbers by 0. Train with gamma from -1 to 1."
            )


def _texts(models: Sequence[AmpModel], model: AmpModel, length: float, energy: float) -> dict[str, str]:
    """Return the files of one member by name."""
    elements = sorted(model.elements, key=atomic_numbers.__getitem__)  # the order of n2p2
    functions = {element: _functions(model, element, elements, length) for element in elements}
    widest = [max(nodes) for nodes in zip(*(_nodes(model, element) for element in elements), strict=True)]
    ranges = {element: _common_range(models, element) for element in elements}
    letter = _LETTERS[model.activation]
    lines = [
        f"number_of_elements {len(elements)}", "elements " + " ".join(elements),
        "cutoff_type " + ("1 0.0" if model.cutoff["name"] == "Cosine" else "5 0.0"), "scale_symmetry_functions",
        f"global_hidden_layers_short {len(widest)}", "global_nodes_short " + " ".join(map(str, widest)),
        "global_activation_short " + " ".join([letter] * len(widest) + ["l"]),
        *(function.line for element in elements for function in functions[element]),
    ]  # fmt: skip
    scaling = [
        f"{kind} {place} {low!r} {high!r} {(low + high) / 2!r} 1.0"
        for kind, element in enumerate(elements, start=1)
        for place, (low, high) in enumerate(ranges[element][_order(functions[element])].tolist(), start=1)
    ]
    texts = {"input.nn": lines, "scaling.data": scaling}
    for element in elements:
        layers = _layers(model, element, ranges[element], energy)
        layers[0] = layers[0][[*_order(functions[element]), -1]]
        texts[f"weights.{atomic_numbers[element]:03d}.data"] = _weights(layers, [len(layers[0]) - 1, *widest, 1])
    return {name: "\n".join(found) + "\n" for name, found in texts.items()}


def _nodes(model: AmpModel, element: str) -> list[int]:
    """Nodes of each hidden layer, the last of which is Amp's output node."""
    return [layer.shape[1] for layer in model.weights[element]]


def _order(functions: list[_Function]) -> list[int]:
    return [function.number for function in functions]


def _functions(model: AmpModel, element: str, elements: list[str], length: float) -> list[_Function]:
    """Return the symmetry functions of an element in the order in which n2p2 sorts them, which its other files have too."""
    cutoff = float(model.cutoff["kwargs"]["Rc"])
    return sorted(_function(g, number, element, elements, cutoff, length) for number, g in enumerate(model.gs[element]))


def _function(g: dict[str, Any], number: int, element: str, elements: list[str], cutoff: float, length: float) -> _Function:
    """Return a symmetry function; Amp's eta is for distances in units of the cutoff."""
    kind, eta, radius = _TYPES[g["type"]], float(g["eta"]) / (cutoff / length) ** 2, cutoff / length
    if g["type"] == "G2":
        offset = float(g.get("offset", 0.0)) / length
        key: tuple[float, ...] = (kind, radius, eta, offset, elements.index(g["element"]))
        return _Function(key, number, f"symfunction_short {element} 2 {g['element']} {eta!r} {offset!r} {radius!r}")
    a, b = sorted(g["elements"], key=elements.index)
    zeta, sign = float(g["zeta"]), float(g["gamma"])
    key = (kind, radius, eta, zeta, sign, elements.index(a), elements.index(b))
    return _Function(key, number, f"symfunction_short {element} {kind} {a} {b} {eta!r} {sign!r} {zeta!r} {radius!r}")


def _common_range(models: Sequence[AmpModel], element: str) -> np.ndarray:
    """Return the range of each fingerprint over all members; -1 to 1 where it does not vary, which RuNNer cannot scale."""
    ranges = np.array([model.fprange[element] for model in models], dtype=float)
    found = np.column_stack([ranges[..., 0].min(axis=0), ranges[..., 1].max(axis=0)])
    found[found[:, 1] - found[:, 0] <= _SMALLEST_RANGE] = -1.0, 1.0
    return found


def _layers(model: AmpModel, element: str, common: np.ndarray, energy: float) -> list[np.ndarray]:
    """Return the weights of each layer, shape (n_in + 1, n_out), for inputs from 0 to 1 and energies in the given unit."""
    low, high = np.asarray(model.fprange[element], dtype=float).T
    scaled = high - low > _SMALLEST_RANGE
    slope = np.where(scaled, 2.0 / np.where(scaled, high - low, 1.0), 1.0)
    offset = np.where(scaled, -1.0 - low * slope, 0.0)  # Amp's input is slope * fingerprint + offset
    layers = [np.array(layer, dtype=float) for layer in model.weights[element]]
    layers[0][-1] += (offset + slope * common[:, 0]) @ layers[0][:-1]
    layers[0][:-1] *= (slope * (common[:, 1] - common[:, 0]))[:, np.newaxis]
    intercept, factor = model.scalings[element]
    return [*layers, np.array([[factor], [intercept]]) / energy]


def _weights(layers: list[np.ndarray], sizes: list[int]) -> list[str]:
    """Return the lines of a weights file; nodes that other elements have and this one lacks have weights of zero."""
    lines: list[str] = []
    for layer, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        full, own = np.zeros((n_in + 1, n_out)), layers[layer]
        full[: len(own) - 1, : own.shape[1]] = own[:-1]
        full[-1, : own.shape[1]] = own[-1]
        for i, row in enumerate(full.tolist(), start=1):
            for j, value in enumerate(row, start=1):
                nodes = f"b {len(lines) + 1} {layer + 1} {j}" if i > n_in else f"a {len(lines) + 1} {layer} {i} {layer + 1} {j}"
                lines.append(f"{value!r} {nodes}")
    return lines
