"""Labels of two parents do not mix: the identity of a parent, and runs whose parent changes."""

import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from label_helpers import assert_good, images, label_all
from parents import Program, Uncopyable, changing, parent, switching
from small_runs import results, run

from amp.nft.labels.executors import check_executor
from amp.nft.labels.identity import EXCLUDED, differences, digest_of, identify
from amp.nft.run.store import RunStoreError

DOCS = Path(__file__).parents[2] / "docs"


class Spring(LennardJones):
    """A class with the same settings as another."""


class Plain(EMT):
    """A calculator whose settings are attributes alone."""

    def __init__(self, model, head=0):
        super().__init__()
        self.parameters = {}
        self.model, self.head = model, head


def factory(directory, method="GFN1", **settings):
    return EMT()


DIFFERENT = {
    "parameters": (LennardJones(sigma=2.0), LennardJones(sigma=2.1)),
    "class": (LennardJones(), Spring()),
    "attributes": (Plain("small"), Plain("large")),
    "parts of a sum": (SumCalculator([EMT(), LennardJones(sigma=2.0)]), SumCalculator([EMT(), LennardJones(sigma=2.1)])),
    "function": (factory, changing),
    "keyword of a partial": (partial(factory, method="GFN1"), partial(factory, method="GFN2")),
    "argument of a partial": (partial(factory, "here", "GFN1"), partial(factory, "here", "GFN2")),
    "partial of a partial": (partial(partial(factory, a=1), b=2), partial(partial(factory, a=1), b=3)),
    "array": (partial(factory, kpts=np.array([1, 1, 1])), partial(factory, kpts=np.array([2, 1, 1]))),
    "large array": (partial(factory, table=np.arange(99)), partial(factory, table=np.arange(99)[::-1])),
    "order of a list": (partial(factory, kpts=[1, 2]), partial(factory, kpts=[2, 1])),
    "function and calculator": (factory, EMT()),
    "calculator in an argument": (partial(factory, base=LennardJones(sigma=2.0)), partial(factory, base=LennardJones(sigma=2.1))),
}
SAME = {
    "copies": (LennardJones(sigma=2.0), LennardJones(sigma=2.0)),
    "excluded settings": (partial(factory, txt="a", NCORE=4, inner={"directory": "x", "a": 1}), partial(factory, inner={"a": 1})),
    "excluded attributes": (Program(directory="a", command="mpirun a"), Program(directory="b", command="a")),
    "kinds of numbers": (partial(factory, a=np.float64(1.5), b=(1, 2)), partial(factory, a=1.5, b=[1, 2])),
    "objects": (partial(factory, a=object()), partial(factory, a=object())),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_parents_that_differ_in_their_labels_have_different_identities(what):
    one, other = map(identify, DIFFERENT[what])
    assert digest_of(one) != digest_of(other) and list(differences(one, other))


@pytest.mark.parametrize("what", SAME)
def test_parents_with_the_same_labels_have_the_same_identity(what):
    one, other = map(identify, SAME[what])
    assert digest_of(one) == digest_of(other) and not list(differences(one, other))


def test_an_identity_is_plain_data_and_the_same_in_another_process():
    code = (
        "import sys, json; sys.path[:0] = sys.argv[1:]; from test_parent_identity import *; "
        "print(json.dumps([identify(a) for a, _ in DIFFERENT.values()]))"
    )
    here = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    found = subprocess.run([sys.executable, "-c", code, *here], capture_output=True, text=True, check=True).stdout
    assert json.loads(found) == json.loads(json.dumps([identify(a) for a, _ in DIFFERENT.values()]))


def test_a_calculator_that_was_used_is_the_same_parent():
    used = EMT()
    atoms = images(1)[0]
    atoms.calc = used
    atoms.get_forces()
    assert digest_of(identify(used)) == digest_of(identify(EMT()))


def test_the_excluded_settings_are_documented():
    page = (DOCS / "formats.rst").read_text(encoding="utf-8")
    listed = page.partition("do not belong to the identity")[2].partition("``")[2].partition("``")[0]
    assert set(listed.split()) == EXCLUDED


# -- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_elsewhere")
def test_a_changed_parent_is_an_error_that_shows_the_difference_and_the_way_out():
    run(max_iterations=1, parent_calc=partial(changing, name="PBE", txt="one.txt"))
    before = results()
    for _ in range(2):  # it is not one start back that counts
        with pytest.raises(RunStoreError, match=r"(?s)arguments\.name: was 'PBE', is 'RPBE'.*another label=.*accept_parent=True"):
            run(max_iterations=2, parent_calc=partial(changing, name="RPBE"))
    assert results() == before
    run(max_iterations=1, parent_calc=partial(changing, name="PBE", txt="two.txt"))


@pytest.mark.usefixtures("_elsewhere")
def test_a_changed_parent_is_accepted_by_an_argument_and_stays_so():
    run(max_iterations=1, parent_calc=partial(changing, name="PBE"))
    run(max_iterations=2, parent_calc=partial(changing, name="RPBE"), accept_parent=True)
    run(max_iterations=2, parent_calc=partial(changing, name="RPBE"))
    with pytest.raises(RunStoreError, match="was 'RPBE', is 'PBE'"):
        run(max_iterations=2, parent_calc=partial(changing, name="PBE"))


@pytest.mark.usefixtures("_elsewhere")
def test_a_function_of_the_same_name_that_returns_another_calculator_is_an_error():
    run(max_iterations=1, parent_calc=switching)
    Path("switch").touch()
    with pytest.raises(RunStoreError, match=r"(?s)parameters\.asap_cutoff: was False, is True.*accept_parent=True"):
        run(max_iterations=2, parent_calc=switching, threshold=-0.5)
    run(max_iterations=2, parent_calc=switching, threshold=-0.5, accept_parent=True)


# -- calculators that write files ------------------------------------------------------------------------------------


EXECUTORS = {"here": None, "threads": partial(ThreadPoolExecutor, 3), "processes": partial(ProcessPoolExecutor, 3)}


@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
def test_a_calculator_that_writes_files_has_a_directory_for_each_label(tmp_path, monkeypatch, executor):
    monkeypatch.chdir(tmp_path)
    wanted = images(6)
    outcomes, _ = label_all(tmp_path, wanted, Program(seconds=0.1), executor)
    assert_good(outcomes, wanted)
    places = sorted(path.parent.name.split("-")[0] for path in (tmp_path / "labels").glob("*/output.json"))
    assert places == [str(k) for k in range(6)] and not Path("output.json").exists()


def test_the_parts_of_a_sum_have_directories_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = images(2)
    outcomes, _ = label_all(tmp_path, wanted, SumCalculator([Program(), Program()]), partial(ProcessPoolExecutor, 2))
    assert {atom: type(outcome).__name__ for atom, outcome in outcomes.items()} == {0: "Label", 1: "Label"}
    assert len(list((tmp_path / "labels").glob("*/*/output.json"))) == 4


def test_a_calculator_that_cannot_be_copied_is_refused_for_threads():
    with ThreadPoolExecutor(2) as threads, pytest.raises(TypeError, match=r"cannot be copied.*f\(directory\)"):
        check_executor(threads, Uncopyable())
    check_executor(None, Uncopyable())


def test_a_calculator_without_a_directory_that_runs_a_command_is_refused_for_executors():
    homeless = EMT()
    homeless._directory = None
    homeless.command = "program > output"
    with pytest.raises(TypeError, match=r"(?s)writes files.*f\(directory\)"):
        check_executor(partial(ProcessPoolExecutor, 2), homeless)
    assert parent
