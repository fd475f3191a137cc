"""Amp's files as data: round trips with Amp itself, hostile and damaged files, and what calc_text builds."""

import itertools
import json
import os
import re
import stat
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from amp import Amp
from amp.stats.bootstrap import BootStrap
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from amp.nft.amp_io import (
    AmpFileError,
    AmpModel,
    CalculatorSpec,
    UnsupportedModel,
    parse_literal,
    read_amp,
    read_calc_text,
    read_ensemble,
    read_texts,
    write_amp,
    write_ensemble,
)
from amp.nft.kernels.prediction.evaluate import Evaluator
from amp.nft.system import files

CALC_TEXT = """
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork

loss = LossFunction(convergence={'energy_rmse': 0.002, 'force_rmse': 0.03}, force_coefficient=0.1,
                    overfit=1e-4, maxiter=70)
calc = Amp(descriptor=Gaussian(cutoff=5.0), dblabel='../amp-db', cores=1,
           model=NeuralNetwork(hiddenlayers=(4, 3), activation='sigmoid', lossfunction=loss))
"""

SMALL = """
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model.neuralnetwork import NeuralNetwork
"""

HOSTILE = {
    "import": "__import__('os').system('touch {mark}')",
    "import inside": "dict(descriptor=__import__('os').system('touch {mark}'), model='dict()')",
    "open": "open('{mark}', 'w')",
    "attribute": "().__class__.__base__.__subclasses__()",
    "attribute of a number type": "np.load('{mark}')",
    "method call": "dict(a=[1].append(2))",
    "lambda": "(lambda: open('{mark}', 'w'))()",
    "comprehension": "[open('{mark}', 'w') for _ in (1,)]",
    "generator": "dict((x, 1) for x in [1])",
    "f-string": "dict(a=f\"{{open('{mark}', 'w')}}\")",
    "power": "9**9**9",
    "product": "'a' * 10**10",
    "condition": "1 if open('{mark}', 'w') else 2",
    "walrus": "(x := open('{mark}', 'w'))",
    "argument of array": "array([open('{mark}', 'w')])",
    "dtype of array": "array([1.0], dtype=open('{mark}', 'w'))",
    "hidden in a key": "{{open('{mark}', 'w'): 1}}",
    "star star": "dict(**open('{mark}', 'w'))",
    "name": "dict(weights=nan)",
    "bytes": "b'abc'",
    "complex": "3j",
    "set": "{{1, 2}}",
    "statement": "import os",
    "two statements": "1; 2",
    "unhashable key": "{{[1]: 2}}",
    "ragged array": "array([[1.0], [2.0, 3.0]])",
    "deep lists": "[" * 90 + "]" * 90,
    "deeper lists": "[" * 10_000,
    "deep calls": "array(" * 100 + "1" + ")" * 100,
    "minus signs": "-" * 100_000 + "1",
    "sum": "1" + "+1" * 100_000,
    "attributes": "a" + ".b" * 100_000,
    "huge integer": "1" * 100_000,
    "null byte": "dict(a='\0')\0",
    "empty": "",
    "truncated": "dict(descriptor=\"dict(importname='.desc",
}


def random_model(seed: int = 0) -> AmpModel:
    """Return a model of two elements whose numbers use all their bits."""
    rng = np.random.default_rng(seed)
    g2 = [{"type": "G2", "element": e, "eta": eta, "offset": 0.5} for e in ("Cu", "Pt") for eta in (0.05, 4.0)]
    g4 = {"type": "G4", "elements": ["Cu", "Pt"], "eta": 0.005, "gamma": -1.0, "zeta": 4.0}
    gs = {"Pt": [*g2, g4], "Cu": g2}
    hiddenlayers = {"Pt": (3, 2), "Cu": (4,)}
    sizes = {e: [len(gs[e]), *hiddenlayers[e], 1] for e in gs}
    return AmpModel(
        gs=gs,
        cutoff={"name": "Polynomial", "kwargs": {"Rc": 6.1, "gamma": 3.0}},
        hiddenlayers=hiddenlayers,
        activation="tanh",
        weights={e: [rng.normal(size=(a + 1, b)) for a, b in itertools.pairwise(n)] for e, n in sizes.items()},
        scalings={e: (rng.normal(), np.float64(rng.normal())) for e in gs},
        fprange={e: np.sort(rng.random((len(gs[e]), 2)) * 1e-7) for e in gs},
    )


def assert_same(one: AmpModel, other: AmpModel) -> None:
    assert one.elements == other.elements
    for name in ("gs", "cutoff", "hiddenlayers", "activation", "scalings"):
        assert getattr(one, name) == getattr(other, name), name
    for element in one.elements:
        for a, b in zip(one.weights[element], other.weights[element], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one.fprange[element], other.fprange[element])


def alloy():
    atoms = bulk("Cu", cubic=True, a=3.7)
    atoms.symbols[1] = "Pt"
    atoms.rattle(0.05, seed=3)
    return atoms


@pytest.fixture
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_round_trip_is_exact():
    model = random_model()
    assert_same(read_amp(write_amp(model)), model)
    assert write_amp(read_amp(write_amp(model))) == write_amp(model)


@pytest.mark.fortran
def test_amp_loads_what_we_write_and_we_read_what_amp_saves(in_tmp_path):
    model = random_model()
    (in_tmp_path / "ours.amp").write_text(write_amp(model))
    calc = Amp.load("ours.amp", label="ours")
    energy = calc.get_potential_energy(alloy())
    calc.save("amps.amp")
    assert_same(read_amp((in_tmp_path / "amps.amp").read_text()), model)
    assert Amp.load("amps.amp", label="amps").get_potential_energy(alloy()) == energy


@pytest.mark.fortran
def test_reads_what_amp_trains(in_tmp_path):
    images = [alloy(), alloy()]
    images[1].rattle(0.1, seed=5)
    for atoms in images:
        atoms.calc = EMT()
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
    names: dict = {}
    exec(CALC_TEXT.replace("maxiter=70", "maxiter=1").replace("../amp-db", "amp-db"), names)
    names["calc"].train(images=images)
    model = read_amp((in_tmp_path / "amp.amp").read_text())
    assert model.elements == ("Cu", "Pt") and model.hiddenlayers == {"Cu": (4, 3), "Pt": (4, 3)}
    assert model.cutoff == {"name": "Cosine", "kwargs": {"Rc": 5.0}}
    (in_tmp_path / "ours.amp").write_text(write_amp(model))
    atoms = alloy()
    forces = [Amp.load(name, label=name).get_forces(atoms) for name in ("amp.amp", "ours.amp")]
    np.testing.assert_array_equal(*forces)
    spec = read_calc_text(CALC_TEXT.replace("dblabel", "label='x', dblabel") + "calc = Amp.load('../../amp.amp')\n")
    assert_same(spec.model, model)


@pytest.mark.fortran
def test_ensemble_round_trip_with_amp(in_tmp_path):
    models = [random_model(seed) for seed in range(3)]
    write_ensemble("three.ensemble", [write_amp(model) for model in models])
    assert os.listdir() == ["three.ensemble"]
    for ours, model in zip(read_ensemble("three.ensemble"), models, strict=True):
        assert_same(ours, model)
    ensemble = BootStrap(load="three.ensemble", label="loaded").ensemble
    (in_tmp_path / "first.amp").write_text(read_texts("three.ensemble")[0])
    first = Amp.load("first.amp", label="first")
    assert ensemble[0].get_potential_energy(alloy()) == first.get_potential_energy(alloy())


def test_failed_write_leaves_the_old_file(in_tmp_path):
    write_ensemble("a.ensemble", ["old"])
    with pytest.raises(TypeError):
        write_ensemble("a.ensemble", [object()])
    assert read_texts("a.ensemble") == ["old"]
    assert os.listdir() == ["a.ensemble"]


def test_a_file_that_is_replaced_keeps_its_mode_and_guessed_names_are_not_followed(in_tmp_path):
    (in_tmp_path / "a").write_text("old")
    (in_tmp_path / "a").chmod(0o640)
    files.write("a", b"new")
    assert stat.S_IMODE(os.stat("a").st_mode) == 0o640 and (in_tmp_path / "a").read_text() == "new"
    (in_tmp_path / "elsewhere").write_text("kept")
    (in_tmp_path / "link").symlink_to("elsewhere")
    files.write("link", b"new")
    assert (in_tmp_path / "elsewhere").read_text() == "kept" and not (in_tmp_path / "link").is_symlink()
    mask = os.umask(0o027)
    try:
        files.write("b", b"new")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(os.stat("b").st_mode) == 0o640
    assert sorted(os.listdir()) == ["a", "b", "elsewhere", "link"]


def test_a_temporary_name_that_exists_is_never_opened(in_tmp_path, monkeypatch):
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "guessed")
    (in_tmp_path / "victim").write_text("kept")
    (in_tmp_path / ".a.guessed.tmp").symlink_to("victim")
    with pytest.raises(FileExistsError):
        files.write("a", b"new")
    assert (in_tmp_path / "victim").read_text() == "kept" and not (in_tmp_path / "a").exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_raises_and_runs_nothing(name, tmp_path):
    mark = tmp_path / "mark"
    text = HOSTILE[name]
    text = text.format(mark=mark) if "{mark}" in text or "{{" in text else text
    for wrapped in (text, repr_in_model(text)):
        with pytest.raises(AmpFileError) as error:
            read_amp(wrapped)
        assert len(str(error.value)) < 300
    assert not mark.exists()


def repr_in_model(text: str) -> str:
    """Return an .amp text that holds `text` where Amp keeps the model's parameters."""
    return f"dict(descriptor={write_descriptor()!r}, model={text!r})"


def write_descriptor() -> str:
    return parse_literal(write_amp(random_model()))["descriptor"]


def test_refusal_names_what_and_where():
    with pytest.raises(AmpFileError, match=r"system.*line 2, column 3"):
        parse_literal("dict(a=1,\nb=__import__('os').system('x'))")


def test_literal_of_everything_that_amp_writes():
    text = """dict(a=OrderedDict([('Pt', {'intercept': np.float64(-1.5e-3), 'slope': numpy.float64(2.0)})]),
        b=OrderedDict({1: array([[1., 2.], [3., -4.]]), 2: matrix([[0.1]])}), c=(None, True, -3, 'x', [], ()),
        d=array([], dtype=float64), e=dict(), f=np.int64(4), g=np.str_('Pt'))"""
    value = parse_literal(text)
    assert value["a"] == OrderedDict(Pt={"intercept": -1.5e-3, "slope": 2.0})
    np.testing.assert_array_equal(value["b"][1], [[1, 2], [3, -4]])
    assert value["c"] == (None, True, -3, "x", [], ()) and value["d"].size == 0
    assert value["f"] == 4 and value["g"] == "Pt"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("weights=", "wights=", "weights"),
        ("(3, 2)", "(3, 3)", "shapes"),
        ("fprange={'Cu'", "fprange={'Ag'", "fprange"),
        ("scalings={'Cu': {'intercept'", "scalings={'Cu': {'interception'", "intercept"),
        ("slope': ", "slope': 1e999, 'unused': ", "finite"),
    ],
)
def test_parts_that_do_not_fit_are_named(old, new, expected):
    text = write_amp(random_model())
    assert old in text
    with pytest.raises(AmpFileError, match=expected):
        read_amp(text.replace(old, new))


VALUES = [
    "1e308", "-1e308", "1e999", "1e-308", "-1", "0", "1" * 400, "None", "True", "'Pt'", "[]", "{}", "()", "nan", "inf",
    "array([1.])", "[[[1]]]",
]  # fmt: skip
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[-+]?\d+)?")
WORD = re.compile(r"[A-Za-z_]\w*")


def mutated(text, rng):
    """Return the text with one or two random changes: of a number, a name, a character, or a longer part."""
    for _ in range(rng.integers(1, 3)):
        kind = rng.integers(6)
        a, b = sorted(rng.integers(0, len(text), 2))
        if kind < 2:
            spots = list((NUMBER if kind == 0 else WORD).finditer(text))
            spot = spots[rng.integers(len(spots))]
            new = VALUES[rng.integers(len(VALUES))] if rng.random() < 0.7 else spots[rng.integers(len(spots))].group()
            text = text[: spot.start()] + new + text[spot.end() :]
        elif kind == 2:
            text = text[:a] + chr(rng.integers(32, 127)) + text[a + 1 :]
        elif kind == 3:
            text = text[:a] + text[a + 1 + rng.integers(3) :]
        elif kind == 4:
            text = text[:a] + text[b : b + 40] + text[a:]
        else:
            text = text[:a] + text[min(b, a + 200) :]
    return text


@pytest.mark.parametrize("cases", [200, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_a_damaged_file_is_an_error_or_gives_numbers(cases):
    """No mutation raises any other error, and none gives forces that are not numbers without an error."""
    rng, text = np.random.default_rng(cases), write_amp(random_model())
    atoms = alloy()
    refused, accepted = 0, 0
    for _ in range(cases):
        damaged = mutated(text, rng)
        try:
            model = read_amp(damaged)
        except (AmpFileError, UnsupportedModel):
            refused += 1
            continue
        accepted += 1
        result = Evaluator([model]).evaluate(atoms.positions, np.full(4, atomic_numbers[model.elements[0]]), np.zeros((3, 3)), np.zeros(3))
        assert np.isfinite(result.energies_mi).all() and np.isfinite(result.forces).all(), damaged
    assert refused > cases / 2 and accepted > cases / 40  # the mutations reach both


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("'Rc': 6.1", "'Rc': 1e9", "Rc of the cutoff is 1000000000.0: it must be a number from 0.1 to 25"),
        ("'Rc': 6.1", "'Rc': '6.1'", "Rc of the cutoff is 6.1: it must be a number"),
        ("'zeta': 4.0", "'zeta': -4.0", "zeta of a G4 is -4.0"),
        ("'eta': 0.05", "'eta': None", "eta of a G2 is None"),
        ("'gamma': -1.0", "'gamma': 3.0", "gamma of a G4 is 3.0"),
        ("'elements': ['Cu', 'Pt']", "'elements': ['Cu']", "elements of a G4 is .*: it must name 2 element"),
        ("'element': 'Cu'", "'element': 'Xx'", "element of a G2 are for 'Xx': it must be a chemical symbol"),
        ("(3, 2)", "(3, 2.5)", "hiddenlayers of Pt contain '2.5'"),
        ("(3, 2)", "(True, 2)", "hiddenlayers of Pt contain 'True'"),
        ("slope': ", "slope': 1e200, 'unused': ", "contain a number of size 1e.200, beyond 1e.08"),
    ],
)
def test_fields_out_of_range_are_named(old, new, expected):
    model = random_model()
    text = f"dict(descriptor={parse_literal(write_amp(model))['descriptor']!r}, model={parse_literal(write_amp(model))['model']!r})"
    parts = parse_literal(text)
    changed = {name: part.replace(old, new, 1) for name, part in parts.items()}
    assert changed != parts
    with pytest.raises(AmpFileError, match=expected):
        read_amp(repr(changed))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (".descriptor.gaussian.Gaussian", ".descriptor.zernike.Zernike", "zernike"),
        (".model.neuralnetwork.NeuralNetwork", ".model.kernelridge.KernelRidge", "kernelridge"),
        ("'Polynomial'", "'Step'", "Step"),
        ("tanh", "relu", "relu"),
        ("'G4'", "'G9'", "G9"),
    ],
)
def test_other_models_are_unsupported_not_broken(old, new, expected, tmp_path):
    text = write_amp(random_model()).replace(old, new)
    with pytest.raises(UnsupportedModel, match=expected):
        read_amp(text)
    write_ensemble(tmp_path / "e", [write_amp(random_model()), text])
    with pytest.raises(UnsupportedModel, match="member 1"):
        read_ensemble(tmp_path / "e")


def test_damaged_ensembles(tmp_path):
    path = tmp_path / "a.ensemble"
    whole = json.dumps([write_amp(random_model())]).encode()
    contents = [
        whole[: len(whole) // 2],
        b"",
        b"\x80\x04\x95\xff\x00",
        b"[]",
        b'{"a": 1}',
        b"[1]",
        b"[" * 100_000,
    ]
    contents.append(b"1" * 10_000)
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(AmpFileError, match=r"a\.ensemble"):
            read_ensemble(path)
    with pytest.raises(FileNotFoundError):
        read_ensemble(tmp_path / "missing")


def test_calc_text_settings(in_tmp_path):
    spec = read_calc_text(CALC_TEXT)
    assert spec == CalculatorSpec(
        gs=None,
        elements=None,
        cutoff={"name": "Cosine", "kwargs": {"Rc": 5.0}},
        hiddenlayers=(4, 3),
        activation="sigmoid",
        energy_coefficient=1.0,
        force_coefficient=0.1,
        given_force_coefficient=0.1,
        overfit=1e-4,
        maxiter=70,
        convergence={
            "energy_rmse": 0.002,
            "energy_maxresid": None,
            "force_rmse": 0.03,
            "force_maxresid": None,
        },
        model=None,
    )
    assert os.listdir() == []


@pytest.mark.fortran
def test_resolved_spells_out_what_amp_would_choose(in_tmp_path):
    spec = read_calc_text(CALC_TEXT).resolved(["Pt", "Cu", "Pt"])
    assert spec.elements == ("Cu", "Pt") and spec.hiddenlayers == {"Cu": (4, 3), "Pt": (4, 3)}
    descriptor = Amp.load(in_tmp_path_model(in_tmp_path), label="x").descriptor
    descriptor.parameters.Gs, descriptor.parameters.elements = None, None
    images = {"0": alloy()}
    descriptor.calculate_fingerprints(images)
    assert spec.gs == descriptor.parameters.Gs
    assert spec.resolved(["Cu"]).gs == {"Cu": spec.gs["Cu"]}


def in_tmp_path_model(path):
    (path / "m.amp").write_text(write_amp(random_model()))
    return str(path / "m.amp")


def test_resolved_takes_lists_and_names_missing_elements(in_tmp_path):
    g = {"type": "G2", "element": "Pt", "eta": 4.0, "offset": 0.0}
    listed = read_calc_text(SMALL + f"calc = Amp(descriptor=Gaussian(Gs=[{g}]), model=NeuralNetwork(hiddenlayers=3))")
    resolved = listed.resolved(["Pt", "Cu"])
    assert resolved.gs == {"Cu": [g], "Pt": [g]} and resolved.hiddenlayers == {"Cu": (3,), "Pt": (3,)}
    for arguments in (
        f"descriptor=Gaussian(Gs={{'Pt': [{g}]}}), model=NeuralNetwork()",
        "descriptor=Gaussian(), model=NeuralNetwork(hiddenlayers={'Pt': (2,)})",
        "descriptor=Gaussian(elements=['Pt']), model=NeuralNetwork()",
    ):
        spec = read_calc_text(SMALL + f"calc = Amp({arguments})")
        assert spec.resolved(["Pt"]).elements == ("Pt",)
        with pytest.raises(ValueError, match="Cu"):
            spec.resolved(["Pt", "Cu"])


def test_no_force_criterion_means_no_forces(in_tmp_path):
    spec = read_calc_text(SMALL + "calc = Amp(descriptor=Gaussian(), model=NeuralNetwork())")
    assert spec.force_coefficient is None and spec.convergence["energy_rmse"] == 0.001


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("calculator = 1", "defines no `calc`"),
        ("calc = (", "not valid Python"),
        ("calc = 1/0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("from nowhere_at_all import x", "nowhere_at_all"),
        ("calc = 3", "must be an Amp calculator"),
    ],
)
def test_bad_calc_text(text, expected, in_tmp_path):
    with pytest.raises(ValueError, match=expected):
        read_calc_text(text)
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "from amp.descriptor.bispectrum import Bispectrum\ncalc = Amp(descriptor=Bispectrum(), model=NeuralNetwork())",
            "Bispectrum",
        ),
        (
            "from amp.model.kernelridge import KernelRidge\ncalc = Amp(descriptor=Gaussian(), model=KernelRidge())",
            "KernelRidge",
        ),
        ("class Mine(NeuralNetwork): pass\ncalc = Amp(descriptor=Gaussian(), model=Mine())", "Mine"),
        (
            "from amp.model import LossFunction\nclass Mine(LossFunction): pass\n"
            "calc = Amp(descriptor=Gaussian(), model=NeuralNetwork(lossfunction=Mine()))",
            "Mine",
        ),
        (
            "from amp.regression import Regressor\nr = Regressor(optimizer='TNC')\n"
            "calc = Amp(descriptor=Gaussian(), model=NeuralNetwork(regressor=r))",
            "regressor",
        ),
        (
            "class Step:\n    Rc = 3.\n    def todict(self): return {'name': 'Step', 'kwargs': {'Rc': 3.}}\n"
            "calc = Amp(descriptor=Gaussian(cutoff=Step()), model=NeuralNetwork())",
            "Step",
        ),
        ("calc = Amp(descriptor=Gaussian(Gs=[{'type': 'G9'}]), model=NeuralNetwork())", "G9"),
        ("calc = Amp(descriptor=Gaussian(), model=NeuralNetwork(fprange={'Pt': [[0, 1]]}))", "fprange"),
    ],
)
def test_calculators_that_go_to_amps_own_jobs(text, expected, in_tmp_path):
    with pytest.raises(UnsupportedModel, match=expected):
        read_calc_text(SMALL + text)


def test_calc_text_sees_what_a_job_sees(in_tmp_path):
    text = SMALL + "assert trainfile.endswith('%i.traj' % ensemble_index) and os and pickle and paropen\n"
    spec = read_calc_text(text + "calc = Amp(Gaussian(cutoff=Rc), NeuralNetwork())", headerlines="#SBATCH -n 1\nRc = 4.5")
    assert spec.cutoff["kwargs"] == {"Rc": 4.5}


@pytest.mark.parametrize("label", ["al", "there/al", "not/yet/there/al"])
def test_relative_paths_in_calc_text_start_in_a_members_directory(in_tmp_path, label):
    Path("there").mkdir()
    Path("radius.txt").write_text("4.25")
    up = "../" * (2 + label.count("/"))
    text = SMALL + f"from pathlib import Path\ncalc = Amp(Gaussian(cutoff=float(Path('{up}radius.txt').read_text())), NeuralNetwork())"
    for directory in (f"{label}-training", Path(f"{label}-training").absolute()):
        assert read_calc_text(text, directory=directory).cutoff["kwargs"] == {"Rc": 4.25}
    assert sorted(os.listdir()) == ["radius.txt", "there"] and not os.listdir("there")


def test_calc_text_is_read_inside_a_queue_that_amp_does_not_know(in_tmp_path, monkeypatch):
    monkeypatch.setenv("PBS_NODEFILE", "nodes")
    assert read_calc_text(SMALL + "calc = Amp(Gaussian(), NeuralNetwork())").elements is None
    assert os.environ["PBS_NODEFILE"] == "nodes"


def test_molecules_element_order_does_not_matter(in_tmp_path):
    spec = read_calc_text(CALC_TEXT)
    water = molecule("H2O")
    assert spec.resolved(water.get_chemical_symbols()) == spec.resolved(["H", "O"])
