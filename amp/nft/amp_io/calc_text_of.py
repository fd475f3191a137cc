"""Text that makes an Amp calculator, from settings by name or from a calculator: jobs and journals keep this text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from amp.nft.amp_io.calc_text import CalculatorSpec, spec_of
from amp.nft.errors import InputError, UnsupportedModel
from amp.nft.inputs.arguments import check_count, check_positive, did_you_mean

FEATURES = ("g2x", "large", "larger", "large5", "paper20")
DEFAULTS: dict[str, Any] = {
    "cutoff": 6.0, "features": "g2x", "hiddenlayers": (5, 5), "energy_rmse": 0.001, "force_rmse": 0.005, "force_maxresid": 0.02,
    "force_coefficient": 0.04, "maxiter": 3000,
}  # fmt: skip
_IMPORTS = (
    "from amp import Amp\n"
    "from amp.descriptor.gaussian import Gaussian\n"
    "from amp.model import LossFunction\n"
    "from amp.model.neuralnetwork import NeuralNetwork\n"
)


def calc_text_of(calc: Any, elements: Iterable[str]) -> str:
    """Return the text that makes an Amp calculator.

    Parameters
    ----------
    calc : str, dict or Amp
        The text itself; settings, any of `DEFAULTS`; or a calculator of Gaussian fingerprints and a neural network.
    elements : iterable of str
        Elements of all structures, for settings.

    Returns
    -------
    str

    Raises
    ------
    TypeError
        It is none of these.
    InputError
        A setting is unknown or out of range, or the calculator is of another kind, or is trained already.
    """
    if isinstance(calc, str):
        return calc
    if isinstance(calc, Mapping):
        return text_of_settings(elements, **_checked(calc))
    if not (hasattr(calc, "descriptor") and hasattr(calc, "model")):
        raise TypeError(f"calc_text is {calc!r}: it must be a str, a dictionary of settings, or an Amp calculator.")
    try:
        spec = spec_of(calc)
    except UnsupportedModel as error:
        raise InputError(f"calc_text is a calculator whose text is not known: {error}; give the Python text that makes it.") from error
    if spec.model is not None:
        raise InputError("calc_text is a trained calculator: give one without weights, and start from an ensemble by NFT(load=...).")
    return _text_of_spec(spec)


def text_of_settings(
    elements: Iterable[str], *, cutoff: float, features: str, hiddenlayers: Iterable[int], energy_rmse: float | None,
    force_rmse: float | None, force_maxresid: float | None, force_coefficient: float, maxiter: int,
) -> str:  # fmt: skip
    """Return the text that makes an Amp calculator with named fingerprints.

    Parameters
    ----------
    elements : iterable of str
    cutoff : float
        Of the fingerprints, Å.
    features : {'g2x', 'large', 'larger', 'large5', 'paper20'}
    hiddenlayers : iterable of int
    energy_rmse, force_rmse, force_maxresid : float or None
        Criteria of the training, eV/atom and eV/Å.
    force_coefficient : float
        Weight of forces against energies in the loss.
    maxiter : int
        Largest number of steps of one training.

    Returns
    -------
    str
    """
    given = {"energy_rmse": energy_rmse, "force_rmse": force_rmse, "force_maxresid": force_maxresid}
    criteria = {name: value for name, value in given.items() if value is not None}
    return (
        f"{_IMPORTS}"
        f"from amp.nft.features import {features}\n\n"
        f"calc = Amp(descriptor=Gaussian(cutoff={cutoff!r}, Gs={features}({list(elements)!r})),\n"
        f"           model=NeuralNetwork(hiddenlayers={tuple(hiddenlayers)!r}), dblabel='../amp-db')\n"
        f"calc.model.lossfunction = LossFunction(force_coefficient={force_coefficient!r}, maxiter={maxiter!r},\n"
        f"                                       convergence={criteria!r})\n"
    )


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with defaults for those that are not given."""
    for name in given:
        if name not in DEFAULTS:
            raise InputError(f"calc_text has a setting {name!r}, which is not known; {did_you_mean(str(name), DEFAULTS)}")
    settings = {**DEFAULTS, **given}
    if settings["features"] not in FEATURES:
        raise InputError(f"calc_text['features'] is {settings['features']!r}: it must be one of {', '.join(map(repr, FEATURES))}.")
    check_positive(**{f"calc_text[{name!r}]": settings[name] for name in ("cutoff", "force_coefficient")})
    criteria = {f"calc_text[{name!r}]": settings[name] for name in ("energy_rmse", "force_rmse", "force_maxresid")}
    check_positive(**{name: value for name, value in criteria.items() if value is not None})
    check_count("calc_text['maxiter']", settings["maxiter"], least=1)
    layers = settings["hiddenlayers"]
    settings["hiddenlayers"] = (layers,) if isinstance(layers, int) else tuple(layers)
    for nodes in settings["hiddenlayers"]:
        check_count("calc_text['hiddenlayers']", nodes, least=1)
    return settings


def _text_of_spec(spec: CalculatorSpec) -> str:
    descriptor = {"cutoff": spec.cutoff, "Gs": spec.gs, **({} if spec.elements is None else {"elements": spec.elements})}
    network = {"hiddenlayers": spec.hiddenlayers, "activation": spec.activation}
    loss = {
        "energy_coefficient": spec.energy_coefficient, "force_coefficient": spec.given_force_coefficient, "overfit": spec.overfit,
        "maxiter": spec.maxiter, "convergence": spec.convergence,
    }  # fmt: skip
    return (
        f"{_IMPORTS}\n"
        f"calc = Amp(descriptor=Gaussian({_arguments(descriptor)}),\n"
        f"           model=NeuralNetwork({_arguments(network)}), dblabel='../amp-db')\n"
        f"calc.model.lossfunction = LossFunction({_arguments(loss)})\n"
    )


def _arguments(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_plain(value)!r}" for name, value in values.items())


def _plain(value: Any) -> Any:
    """Return a value whose text is Python without imports."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, list):
        return list(map(_plain, value))
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
