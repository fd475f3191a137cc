"""One trained Amp calculator as plain data, from its ``.amp`` text and back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ase.calculators.calculator import Parameters

from amp.nft.amp_io import ranges
from amp.nft.amp_io.external import is_external
from amp.nft.amp_io.literal import parse_literal
from amp.nft.errors import AmpFileError, UnsupportedModel

GAUSSIAN = ".descriptor.gaussian.Gaussian"
NEURAL_NETWORK = ".model.neuralnetwork.NeuralNetwork"
REMAINDER = "amp.nft.calculator.EnsembleCalculator(..., baseline=...)"  # of members that lack their baseline: plain Amp cannot import it
VERSION = "2015.12"
ACTIVATIONS = ("tanh", "sigmoid", "linear")
CUTOFFS = {"Cosine": {"Rc"}, "Polynomial": {"Rc", "gamma"}}
SYMMETRY_FUNCTIONS = ("G2", "G4", "G5")


@dataclass(frozen=True)
class AmpModel:
    """One trained Gaussian + NeuralNetwork calculator.

    Attributes
    ----------
    gs : dict of str to list of dict
        Amp's symmetry functions of each element, in the order of the fingerprint.
    cutoff : dict
        Amp's ``{'name': 'Cosine' or 'Polynomial', 'kwargs': {'Rc': Å, ...}}``.
    hiddenlayers : dict of str to tuple of int
        Nodes of each hidden layer.
    activation : str
        'tanh', 'sigmoid' or 'linear'.
    weights : dict of str to list of ndarray, shapes (n_in + 1, n_out)
        One array per layer, its last row the bias.
    scalings : dict of str to (float, float)
        Intercept and slope of the atomic energy, eV.
    fprange : dict of str to ndarray, shape (n_features, 2)
        Smallest and largest value of each fingerprint, mapped to -1 and 1.
    nft : dict of str to Any
        Data of amp.nft in the text, which Amp ignores; ``nft['out_of_bag']`` is the calibration of the member's ensemble, and
        ``nft['baseline']`` describes the calculator to which the member adds: Amp cannot load its text.
    """

    gs: dict[str, list[dict[str, Any]]]
    cutoff: dict[str, Any]
    hiddenlayers: dict[str, tuple[int, ...]]
    activation: str
    weights: dict[str, list[np.ndarray]]
    scalings: dict[str, tuple[float, float]]
    fprange: dict[str, np.ndarray]
    nft: dict[str, Any] = field(default_factory=dict)

    @property
    def error95_factor(self) -> float | None:
        """Factor on the uncertainty of the ensemble that gives a 95 % band of the force error; None if not calibrated."""
        return self.nft.get("out_of_bag", {}).get("factor")

    @property
    def error95_floor(self) -> float | None:
        """Least width of that band, which a run found by labels in larger chunks and keeps in the card, eV/Å; None if it is not known."""
        card = self.nft.get("card")
        return card.get("error95_floor") if isinstance(card, dict) else None

    @property
    def elements(self) -> tuple[str, ...]:
        """The elements of the networks, sorted."""
        return tuple(sorted(self.weights))


def read_amp(text: str) -> AmpModel:
    """Return the model in an ``.amp`` text.

    Parameters
    ----------
    text : str
        Text written by ``Amp.save`` or :func:`write_amp`.

    Returns
    -------
    AmpModel

    Raises
    ------
    AmpFileError
        The text cannot be read, contains more than data, or its parts do not fit together.
    UnsupportedModel
        The descriptor is not ``Gaussian`` or the model not ``NeuralNetwork``, or another program trained the member.
    """
    if is_external(text):
        raise UnsupportedModel("another program trained this member: open it with amp.nft.calculator.load")
    parts = _mapping(parse_literal(text), "the file")
    descriptor, network = _descriptor_and_model(parts)
    own = _mapping(parts.get("nft", {}), "nft")
    if network.get("importname") == REMAINDER:
        _mapping(own.get("baseline"), "nft['baseline']")
        network = {**network, "importname": NEURAL_NETWORK}
    return replace(model_from_parameters(descriptor, network), nft=own)


def with_data(text: str, **data: Any) -> str:
    """Return an ``.amp`` text with data of amp.nft added under the key ``nft``, for any kind of model.

    Parameters
    ----------
    text : str
        Text written by ``Amp.save`` or :func:`write_amp`.
    **data : Any
        Numbers, strings, and containers of these; they replace data of the same names. Numbers that are not finite become None.

    Returns
    -------
    str

    Raises
    ------
    AmpFileError
        The text cannot be read.
    """
    if is_external(text):
        raise UnsupportedModel("another program trained this member: open it with amp.nft.calculator.load")
    parts = _mapping(parse_literal(text), "the file")
    return Parameters(**{**parts, "nft": {**parts.get("nft", {}), **_finite(_plain(data))}}).tostring()


def check_text(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters of descriptor and model in an ``.amp`` text of any kind.

    Parameters
    ----------
    text : str

    Returns
    -------
    dict, dict
        Parameters of the descriptor and of the model.

    Raises
    ------
    AmpFileError
        If the text is not data.
    """
    return _descriptor_and_model(_mapping(parse_literal(text), "the file"))


def _descriptor_and_model(parts: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters of descriptor and model."""
    descriptor, model = (_mapping(parse_literal(_get(parts, key)), key) for key in ("descriptor", "model"))
    return descriptor, model


def model_from_parameters(descriptor: dict[str, Any], model: dict[str, Any]) -> AmpModel:
    """Return the model in the ``parameters`` of Amp's descriptor and model.

    Parameters
    ----------
    descriptor, model : dict
        As Amp writes them.

    Returns
    -------
    AmpModel

    Raises
    ------
    AmpFileError, UnsupportedModel
        See :func:`read_amp`.
    """
    require_supported(descriptor, model)
    try:
        result = _convert(descriptor, model)
    except (AmpFileError, UnsupportedModel):
        raise
    except (TypeError, ValueError, AttributeError, KeyError, IndexError, OverflowError) as error:
        raise AmpFileError(f"not a trained model as Amp writes it ({type(error).__name__}: {error})") from None
    _check_shapes(result)
    return result


def require_supported(descriptor: dict[str, Any], model: dict[str, Any]) -> None:
    """Check that parameters are those of Gaussian + NeuralNetwork.

    Parameters
    ----------
    descriptor, model : dict
        ``parameters`` of Amp's descriptor and model.

    Raises
    ------
    UnsupportedModel
        They are of another kind, cutoff function or activation.
    AmpFileError
        The cutoff is out of range.
    """
    owners = (("descriptor", descriptor, GAUSSIAN), ("model", model, NEURAL_NETWORK))
    for owner, parameters, supported in owners:
        if parameters.get("importname") != supported:
            raise UnsupportedModel(f"the {owner} is {parameters.get('importname')!r}, not {supported!r}")
        if parameters.get("mode") not in (None, "atom-centered"):
            raise UnsupportedModel(f"the {owner}'s mode is {parameters['mode']!r}, not 'atom-centered'")
    cutoff = _mapping(descriptor.get("cutoff"), "cutoff")
    name = cutoff.get("name")
    if not isinstance(name, str) or CUTOFFS.get(name) != set(_mapping(cutoff.get("kwargs"), "cutoff")):
        raise UnsupportedModel(f"the cutoff is {cutoff}, neither Cosine nor Polynomial")
    ranges.check_cutoff(cutoff)
    if model.get("activation") not in ACTIVATIONS:
        raise UnsupportedModel(f"the activation is {model.get('activation')!r}, none of {', '.join(ACTIVATIONS)}")


def _convert(descriptor: dict[str, Any], model: dict[str, Any]) -> AmpModel:
    """Return Amp's parameters as an AmpModel, unchecked."""
    weights = _mapping(model.get("weights"), "weights")
    ranges.check_elements("weights", weights)
    scalings = _mapping(model.get("scalings"), "scalings")
    return AmpModel(
        gs=symmetry_functions(descriptor["Gs"], weights),
        cutoff={"name": descriptor["cutoff"]["name"], "kwargs": dict(descriptor["cutoff"]["kwargs"])},
        hiddenlayers=hidden_layers(model["hiddenlayers"], weights),
        activation=model["activation"],
        weights={e: [np.array(layers[k], dtype=float) for k in sorted(layers)] for e, layers in weights.items()},
        scalings={e: (float(s["intercept"]), float(s["slope"])) for e, s in scalings.items()},
        fprange={e: np.array(r, dtype=float) for e, r in _mapping(model.get("fprange"), "fprange").items()},
    )


def symmetry_functions(gs: Any, elements: Sequence[str] | dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the symmetry functions of each element.

    Parameters
    ----------
    gs : list or dict
        Amp's: one list for all elements, or a list for each.
    elements : sequence of str

    Returns
    -------
    dict of str to list of dict

    Raises
    ------
    UnsupportedModel
        One is not G2, G4 or G5.
    AmpFileError
        A parameter is out of range.
    """
    per_element = {element: gs[element] if hasattr(gs, "keys") else gs for element in elements}
    result = {element: [dict(g) for g in functions] for element, functions in per_element.items()}
    for g in (g for functions in result.values() for g in functions):
        if g.get("type") not in SYMMETRY_FUNCTIONS:
            raise UnsupportedModel(f"a symmetry function of type {g.get('type')!r}, not G2, G4 or G5")
        ranges.check_function(g)
    return result


def hidden_layers(layers: Any, elements: Sequence[str] | dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the numbers of nodes of the hidden layers of each element.

    Parameters
    ----------
    layers : int, sequence of int or dict
        Amp's: for all elements, or by element.
    elements : sequence of str

    Returns
    -------
    dict of str to tuple of int

    Raises
    ------
    AmpFileError
        A number of nodes is out of range.
    """
    per_element = {element: layers[element] if hasattr(layers, "keys") else layers for element in elements}
    found = {e: (n,) if np.ndim(n) == 0 else tuple(n) for e, n in per_element.items()}
    for element, nodes in found.items():
        ranges.check_layers(element, nodes)
    return {element: tuple(int(n) for n in nodes) for element, nodes in found.items()}


def _check_shapes(model: AmpModel) -> None:
    """Raise AmpFileError unless the arrays fit the layers and the symmetry functions, element by element."""
    for name in ("scalings", "fprange"):
        if set(getattr(model, name)) != set(model.weights):
            raise AmpFileError(f"{name} are for {sorted(getattr(model, name))}, weights for {list(model.elements)}")
    for element in model.elements:
        sizes = [len(model.gs[element]), *model.hiddenlayers[element], 1]
        expected = [(n_in + 1, n_out) for n_in, n_out in itertools.pairwise(sizes)]
        shapes = [w.shape for w in model.weights[element]]
        if shapes != expected:
            raise AmpFileError(f"the weights of {element} have shapes {shapes}, its layers {sizes} need {expected}")
        if model.fprange[element].shape != (sizes[0], 2):
            raise AmpFileError(f"fprange of {element} is {model.fprange[element].shape}, not {(sizes[0], 2)}")
        _check_sizes(model, element)


def _check_sizes(model: AmpModel, element: str) -> None:
    """Raise AmpFileError for numbers with which the energy or a force of an atom would overflow."""
    for array in (*model.weights[element], np.array(model.scalings[element])):
        ranges.check_size(f"weights or scalings of {element}", array, ranges.LARGEST)
    low, high = model.fprange[element].T
    ranges.check_size(f"fprange of {element}", model.fprange[element], ranges.LARGEST_FINGERPRINT)
    if (low > high).any():
        raise AmpFileError(f"fprange of {element} contains a range that ends before it begins")


def write_amp(model: AmpModel) -> str:
    """Return the ``.amp`` text of a model, for :func:`read_amp` and, unless it adds to a baseline, for ``Amp.load``.

    Parameters
    ----------
    model : AmpModel

    Returns
    -------
    str
        Text that gives every number back bit by bit.
    """
    elements = model.elements
    descriptor = Parameters(
        importname=GAUSSIAN,
        version=VERSION,
        mode="atom-centered",
        cutoff=_plain(model.cutoff),
        Gs={e: _plain(model.gs[e]) for e in elements},
        elements=list(elements),
    )
    network = Parameters(
        importname=REMAINDER if "baseline" in model.nft else NEURAL_NETWORK,
        version=VERSION,
        mode="atom-centered",
        activation=model.activation,
        hiddenlayers={e: tuple(_plain(model.hiddenlayers[e])) for e in elements},
        weights={e: {k: w.tolist() for k, w in enumerate(model.weights[e], start=1)} for e in elements},
        scalings={e: _plain(dict(zip(("intercept", "slope"), model.scalings[e], strict=True))) for e in elements},
        fprange={e: model.fprange[e].tolist() for e in elements},
    )
    own = {"nft": _finite(_plain(model.nft))} if model.nft else {}
    return Parameters(descriptor=descriptor.tostring(), model=network.tostring(), **own).tostring()


def _plain(value: Any) -> Any:
    """Return the value with Python's own numbers and containers, whose repr any Python reads."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _finite(value: Any) -> Any:
    """Replace numbers that are not finite by None: Python has no literal for them, and Amp's reader fails."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _mapping(value: Any, name: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise AmpFileError(f"{name} contains {type(value).__name__}, not a dictionary: not a trained model's?")
    return value


def _get(parts: dict[Any, Any], key: str) -> Any:
    if key not in parts:
        raise AmpFileError(f"no {key!r} in the file: is this an .amp file?")
    return parts[key]
