"""Checks and notes before the first training: parent of the images, their cells, terminations, charges, the method."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from small_runs import Fragile, cells, cluster, results, run

from amp.nft.activelearner import NFT
from amp.nft.activelearner.chunk_labels import Carving
from amp.nft.activelearner.method import choose_method
from amp.nft.activelearner.setup import Setup
from amp.nft.activelearner.start_checks import fitting_method, gain_from_robust, has_adsorbate, summary_of_chunks
from amp.nft.errors import ChunkError, ParentMismatch
from amp.nft.records import LabelOptions

pytestmark = pytest.mark.filterwarnings("ignore:.*outside the range of the training set")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class GammaOnly(EMT):
    """EMT with an error that depends on the size of the cell, as few k-points make it."""

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        if atoms.pbc.all():
            self.results["energy"] -= 1.0


def lines_of(name="log.txt"):
    return Path(name).read_text().splitlines()


@pytest.mark.parametrize(("threshold", "fraction"), [(0.9, "10"), (0.5, "50"), (0.995, "0.5")])
def test_a_threshold_that_looks_like_a_fraction_is_explained(threshold, fraction):
    text = f"takes every atom above {threshold} eV/Å; for the top {fraction} % write -{threshold}"
    with pytest.warns(UserWarning, match=text) as caught:
        al = NFT(threshold=threshold)
    assert len(caught) == 1
    assert al.threshold == threshold


@pytest.mark.parametrize("threshold", [0.49, 1.0, 2.0, -0.9, None])
def test_other_thresholds_need_no_explanation(threshold):
    NFT(threshold=threshold)  # a warning is an error


def test_a_paper_run_compares_one_image_and_goes_on():
    run(max_iterations=0, log="log.txt")
    assert any("stored energy" in line and "EMT gives" in line for line in lines_of())
    with pytest.warns(UserWarning, match="Likely causes"):
        run(max_iterations=0, label="b", parent_calc=LennardJones(sigma=2.3, epsilon=0.4))
    whole = results("b")
    run(max_iterations=0, label="c", check_parent=False, parent_calc=LennardJones(sigma=2.3, epsilon=0.4))
    assert {name.replace("c.", "b.").replace("c-", "b-"): data for name, data in results("c").items()} == whole


def test_an_image_that_the_parent_cannot_label_is_a_warning_in_paper():
    parent = Fragile()
    parent.fails = "all"
    with pytest.warns(UserWarning, match=r"cannot label images\[2\]"):
        run(max_iterations=0, parent_calc=parent)


def test_images_are_labelled_where_labels_are_made():
    from concurrent.futures import ThreadPoolExecutor

    made = []

    class Counting(ThreadPoolExecutor):
        def submit(self, *args, **kwargs):
            made.append(args)
            return super().submit(*args, **kwargs)

    run(max_iterations=0, executor=lambda: Counting(1))
    assert len(made) == 1
    assert not [path for path in Path("al-training/labels").rglob("*") if path.is_file()]


def test_cells_that_are_too_small_for_the_calculator_that_labelled_them_are_refused():
    images = cells()
    for image in images:
        image.calc = GammaOnly()
        image.get_forces()
    with pytest.raises(ParentMismatch, match=r"doubled along axis .* too small"):
        run(images=images, parent_calc=GammaOnly(), images_calc=GammaOnly(), max_iterations=0)
    assert not list(Path().glob("*.ensemble"))
    run(images_calc=EMT(), label="b", max_iterations=0, log="log.txt")
    assert any("large enough" in line for line in lines_of())


def notes(targets, parent=None, **changes):
    return gain_from_robust(choose_method("paper", **changes), targets, parent or EMT())


def test_a_paper_run_says_in_one_line_if_it_would_gain_from_robust():
    metal = Atoms("Pt13", np.array(cluster().positions[:13]))
    assert notes([metal]) == ""
    assert notes([metal], LennardJones()) == ""
    assert "may differ from that in the target" in notes([metal], lambda directory: EMT())
    assert "cut covalent bonds (3 of 3 atoms" in notes([molecule("H2O")])
    assert "separate ions" in notes([bulk("MgO", "rocksalt", a=4.21, cubic=True)])
    assert notes([molecule("H2O")], forces="weighted") == notes([molecule("H2O")], termination="auto") == ""
    run(max_iterations=0, log="log.txt", parent_calc=parent)
    assert sum("would gain" in line for line in lines_of()) == 1
    run(max_iterations=1, log="log.txt", parent_calc=parent)
    assert sum("would gain" in line for line in lines_of()) <= 1


def parent(directory):
    return EMT()


def slab():
    atoms = fcc111("Pt", (3, 3, 3), vacuum=6.0)
    add_adsorbate(atoms, molecule("CO"), 2.2, "bridge")
    return atoms


def test_chunks_of_a_surface_with_an_adsorbate_have_a_least_number_of_atoms_in_robust():
    assert has_adsorbate([slab()])
    assert not has_adsorbate([fcc111("Pt", (3, 3, 3), vacuum=6.0), molecule("C6H6")])
    assert fitting_method(choose_method("robust"), [slab()], EMT()).min_atoms == 25
    assert fitting_method(choose_method("robust", min_atoms=1), [slab()], EMT()).min_atoms == 1
    assert fitting_method(choose_method("paper"), [slab()], EMT()).min_atoms is None
    assert fitting_method(choose_method("robust"), [cluster()], EMT()).min_atoms is None


class TotalSpin(Calculator):
    """Stands for a calculator of a package that adds up magnetic moments."""


TotalSpin.__module__ = "tblite.ase"


def test_magnetic_moments_that_the_parent_adds_up_are_refused():
    target = cluster()
    target.set_initial_magnetic_moments([1.0] * len(target))
    with pytest.raises(ChunkError, match="adds those of each chunk to a total spin"):
        run(target_image=target, parent_calc=TotalSpin())
    assert not list(Path().iterdir())


def setup(target, method, termination):
    carving = Carving([target], 3.0, termination)
    return Setup("al", [], [], 3, 0, carving, None, LabelOptions(EMT()), choose_method(method), None, "", None)


def test_terminations_are_summarised_and_charged_chunks_warned_of():
    water = Atoms()
    for k in range(4):
        one = molecule("H2O")
        one.translate([0, 0, 3.0 * k])
        water += one
    line = summary_of_chunks(setup(water, "robust", "auto"))
    assert line.startswith("Termination auto: molecule (12 atoms) completed. 12 chunks, 0 caps, no clashes")
    assert summary_of_chunks(setup(water, "paper", "sphere")) == ""
    water.set_initial_charges([-0.8, 0.4, 0.4] * 4)
    with pytest.warns(UserWarning, match="do not sum to 0"):
        assert "labels ions" in summary_of_chunks(setup(water, "paper", "sphere"))
