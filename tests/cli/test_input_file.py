"""The input file: what it accepts, and the error for everything else."""

import json
import tomllib

import pytest

from amp.nft.cli.input_file import InputFile, read_input, schema
from amp.nft.cli.main import PARENTS
from amp.nft.cli.settings import arguments_of_nft, calc_text, learner_of, slurm_cluster
from amp.nft.cli.templates import template
from amp.nft.errors import InputError

SMALLEST = {"system": {"target": "t.xyz"}, "parent": {"calculator": "ase.calculators.emt.EMT"}}


@pytest.fixture
def wrong(tmp_path):
    """Return the error of a text."""

    def error_of(text, *changes, name="nft.toml"):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError) as caught:
            read_input(tmp_path / name, changes)
        return str(caught.value)

    return error_of


@pytest.fixture
def given(tmp_path):
    """Return the content of a file, with changes."""

    def read(*changes):
        path = tmp_path / "nft.json"
        path.write_text(json.dumps(SMALLEST))
        return read_input(path, changes)

    return read


@pytest.mark.parametrize("parent", PARENTS)
def test_templates_are_correct_input(parent):
    found = InputFile.model_validate(tomllib.loads(template(parent)))
    assert found.parent.calculator
    assert found.ensemble.cutoff < found.chunks.cutoff


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("ensemble.forces_rmse=0.1", "ensemble.forces_rmse is not a known key; did you mean force_rmse?"),
        ("stops.delta=1", "stops is not a known key; did you mean stop?"),
        ("stop.xyz=1", "stop.xyz is not a known key; known: delta, max_iterations, steps_not_improved, aim."),
        ("stop.delta=-1", "stop.delta is -1: input should be greater than 0."),
        ("stop.delta=small", "stop.delta is 'small': input should be a valid number."),
        ("stop.max_iterations=2.5", "stop.max_iterations is 2.5: input should be a valid integer"),
        ("stop.max_iterations=true", "stop.max_iterations is true: input should be a valid integer"),
        ("method.name=robuts", "method.name is 'robuts': input should be 'paper' or 'robust'."),
        ("parent.timeout=4 hours", "parent.timeout: a time must be a number of seconds, or a number with a unit"),
        ("parent.factory=a.py:make", "parent: give either calculator, as 'module.Class', or factory"),
        ("labels.where=pool", "labels: where = 'pool' needs jobs."),
        ("select={fraction=0.1, above=0.1}", "select: fraction and above exclude each other"),
        ("ensemble={calc_text='calc = 1', cutoff=5.0}", "ensemble: calc_text sets the whole calculator: remove cutoff, or calc_text."),
        ("system=1", "system is 1: input should be"),
        ("stop.delta", "give table.key=value"),
        ("system.target.x=1", "target is not a table"),
        ("version=2", "version is 2: input should be 1."),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(given, change, text):
    with pytest.raises(InputError) as caught:
        given(change)
    assert text in str(caught.value)


def test_each_fault_has_a_line(wrong):
    assert wrong("[stop]\ndelta = 0\n").splitlines()[0].endswith("system is missing.")
    assert len(wrong("[stop]\ndelta = 0\n").splitlines()) == 3


def test_files_that_are_not_toml_or_json(wrong, tmp_path):
    assert "nft.toml cannot be read: " in wrong("[stop\n")
    assert "x.json cannot be read: " in wrong("{", name="x.json")
    assert "is not a table of tables" in wrong("[]", name="x.json")
    with pytest.raises(FileNotFoundError, match="write one with `amp-nft init`"):
        read_input(tmp_path / "none.toml")


def test_changes_replace_values_of_the_file(given):
    found = given("stop.delta=0.2", "select.fraction=0.25", "run.label=mine", 'parent.timeout="90 min"', "method.check_parent=false")
    assert (found.stop.delta, found.run.label, found.parent.timeout) == (0.2, "mine", 5400.0)
    assert found.method.check_parent is False
    assert arguments_of_nft(found) == {"stop_delta": 0.2, "threshold": -0.75, "method": "paper"}
    assert arguments_of_nft(given("select.above=0.3"))["threshold"] == 0.3
    assert learner_of(given("select.above=0.9")).threshold == 0.9  # the key says what it means: no warning


def test_the_schema_describes_each_key():
    found = json.loads(schema())
    assert found["additionalProperties"] is False
    assert set(found["properties"]) == set(InputFile.model_fields)
    for name, table in found["$defs"].items():
        assert all("description" in key for key in table["properties"].values()), name


def test_the_text_of_the_calculator_is_what_the_keys_say(given):
    from amp.nft.amp_io import read_calc_text

    spec = read_calc_text(calc_text(given("ensemble.hiddenlayers=[4, 3]", "ensemble.cutoff=5.5").ensemble, ["Cu", "Pt"]))
    assert spec.cutoff["kwargs"]["Rc"] == 5.5
    assert set(spec.gs) == {"Cu", "Pt"}
    assert spec.convergence["force_maxresid"] == 0.02


@pytest.mark.engines
def test_jobs_of_slurm_have_the_options_of_sbatch(given):
    pytest.importorskip("dask_jobqueue")
    labels = given('labels={where="slurm", jobs=2, sbatch=["--ntasks=16", "--time=04:00:00", "--mem=32G"], setup="module load x"}').labels
    with slurm_cluster(labels) as cluster:
        script = cluster.job_script()
    for text in ("#SBATCH --ntasks=16", "#SBATCH --mem=32G", "#SBATCH -t 04:00:00", "module load x"):
        assert text in script


def test_a_committee_of_another_program(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = (
        "committee.train=bash train.sh",
        "committee.calculator=ase.calculators.emt.EMT",
        "committee.model=m.xml",
        "committee.members=4",
    )
    found = given(*parts, "committee.timeout=2 h", "committee.args={fixed_cutoff = true}")
    settings = learner_of(found).trainer
    assert (settings.command, settings.calculator, settings.model, settings.timeout) == (
        "bash train.sh", "ase.calculators.emt.EMT", "m.xml", 7200.0
    )  # fmt: skip
    assert settings.options == {"fixed_cutoff": True} and settings.start == []
    for name in ("b.xml", "a.xml"):
        (tmp_path / name).touch()
    assert learner_of(given(*parts[:3], 'committee.members=["*.xml"]')).trainer.start == ["a.xml", "b.xml"]
    with pytest.raises(InputError, match=r"names 0 files"):
        learner_of(given(*parts[:3], 'committee.members=["*.model"]'))
    with pytest.raises(InputError, match="ensemble and committee exclude each other"):
        given(*parts, "ensemble.members=4")
    with pytest.raises(InputError, match=r"committee\.calculator is missing"):
        given(parts[0])
