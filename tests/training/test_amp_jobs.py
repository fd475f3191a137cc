"""Jobs of Amp under supervision: their training, and the treatment of jobs that fail or hang."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from amp import Amp
from amp.model import LossFunction
from amp.stats.bootstrap import BootStrap, train_line
from amp.utilities import hash_images
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import Trajectory, read
from waiting import PATIENCE, wait_for

from amp.nft.amp_io import AmpFileError, read_amp, write_ensemble
from amp.nft.records import ForceRows, JobOptions, TrainingTask
from amp.nft.system.processes import has_ended, machine, runs
from amp.nft.training import choose_trainer
from amp.nft.training.amp_jobs import AmpJobs, JobError, check_start_command, job_state, kernel_fit, script
from amp.nft.training.amp_jobs.database import KEPT, SharedDatabase
from amp.nft.training.amp_jobs.directory import TrainingDirectory, script_text
from amp.nft.training.amp_jobs.loss_table import read_last_step

SERIAL = f"{sys.executable} run.py"
BACKGROUND = f"{SERIAL} &"

CALC_TEXT = """
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork

loss = LossFunction(convergence={'energy_rmse': 0.001, 'force_rmse': 0.01}, maxiter=5)
Gs = [{'type': 'G2', 'element': e, 'eta': eta, 'offset': 0.} for e in ('Cu', 'Pt') for eta in (0.1, 4.)]
calc = Amp(descriptor=Gaussian(cutoff=4.0, Gs=Gs), dblabel='../amp-db', cores=1,
           model=NeuralNetwork(hiddenlayers=(2,), lossfunction=loss))
"""
ENDLESS = (
    CALC_TEXT
    + """
import itertools, time
loss.parameters['maxiter'] = 10**9
loss.parameters['convergence']['energy_rmse'] = 0.
get_loss, calls = calc.model.get_loss, itertools.count()
calc.model.get_loss = lambda *what, **more: (time.sleep(600 * (next(calls) > 5)), get_loss(*what, **more))[1]
"""
)
NEVER_MET = CALC_TEXT.replace("maxiter=5", "maxiter=1000") + (
    "from amp.regression import Regressor\ncalc.model.regressor = Regressor(optimizer_kwargs={'options': {'maxiter': 2}})\n"
)
# before the job begins, so that it seems to run on another machine
ELSEWHERE = "import socket\nsocket.gethostname = lambda: 'elsewhere'"


def labelled(atoms, seed, amplitude=0.08):
    atoms.rattle(amplitude, seed=seed)
    atoms.calc = EMT()
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
    return atoms


def images():
    """Three bulk cells and two chunks of two elements."""
    cells = [bulk("Cu", cubic=True, a=3.6 + 0.05 * k) for k in range(3)]
    chunks = [fcc111("Cu", (2, 2, 2), vacuum=5.0), fcc111("Cu", (2, 2, 1), vacuum=5.0)]
    for chunk in chunks:
        chunk.pbc = False
    for atoms in [*cells, *chunks]:
        atoms.symbols[1] = "Pt"
    return [labelled(atoms, seed) for seed, atoms in enumerate([*cells, *chunks])]


CENTRES = [None, None, None, 0, 2]
ROWS = [None, None, None, ForceRows.central(0), ForceRows.central(2)]


def task(**changes):
    settings = {
        "images": images(),
        "rows": ROWS,
        "weights_mi": np.array([[1, 2, 0, 1, 1], [1, 0, 1, 2, 1]]),
        "start": None,
        "seed": 7,
        "iteration": 0,
    }
    return TrainingTask(**(settings | changes))


def one_member(**changes):
    return task(weights_mi=np.array([[1, 2, 0, 1, 1]]), **changes)


class Log:
    """Lines of a log."""

    def __init__(self):
        self.lines = []

    def __call__(self, line):
        self.lines.append(line)

    @property
    def text(self):
        return "\n".join(self.lines)


def options(calc_text=CALC_TEXT, command=SERIAL, headerlines="", line=train_line, expired=3600.0):
    return JobOptions(calc_text, headerlines, line, command, Path("al-training"), expired)


def jobs(log, *texts, **settings):
    of_jobs = {key: settings.pop(key) for key in ("calc_text", "command", "headerlines", "line", "expired") if key in settings}
    return AmpJobs(options(*texts, **of_jobs), log=log, poll=0.1, **settings)


def wait_for_running(member=0, driver=None):
    """Wait until a job is in the middle of its training, and return its state."""
    directory = Path("al-training", str(member)).absolute()
    wait_for(lambda: (last := read_last_step(directory / "amp-log.txt")) and last.steps > 3, driver)
    return job_state.read_state(directory)


def in_background(function):
    """Run a function beside the test; its exception or result is in the list."""
    outcome = []

    def run():
        try:
            outcome.append(function())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def log():
    return Log()


# -- the loss that a job minimizes ---------------------------------------------------------------------------


def set_up(sample, nft_ids, cores=1, aligned=True):
    """Return the user's calculator as a job has it before its train line, and the member's images."""
    with Trajectory("sample.traj", "w") as trajectory:
        for atoms in sample:
            trajectory.write(atoms)
    names: dict = {}
    exec(CALC_TEXT.replace("cores=1", f"cores={cores}").replace("../amp-db", "amp-db"), names)
    calc = names["calc"]
    script.prepare(calc, seed=3, fresh=False)
    calc.model.lossfunction.parameters["nft_ids"] = nft_ids
    if aligned:
        script.align(calc, "sample.traj")
    return calc, hash_images("sample.traj")


def loss_and_gradient(calc, hashed, parameters=None):
    """Amp's loss, its gradient and its residuals, at given or at the initial parameters."""
    calc.descriptor.calculate_fingerprints(hashed, calculate_derivatives=True)
    model = calc.model
    model.lossfunction.raise_ConvergenceOccurred = False
    model.fit(hashed, calc.descriptor, calc._log, calc._parallel, only_setup=True)
    result = model.lossfunction.get_loss(model.vector if parameters is None else parameters, lossprime=True)
    return result, model.vector


def nft_ids_of(all_images):
    """Ids of all chunks, those of other members before, between and after, in an order of their own."""
    found = [(name, c) for name, c in zip(hash_images(all_images), CENTRES, strict=True) if c is not None]
    return [("of another member", 1), found[1], ("of yet another", 0), found[0]]


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("order", [[0, 3, 1, 4, 3, 2, 0], [3, 0, 4, 4, 1], [4, 0], [0, 1]])
def test_fortran_loss_of_a_job_is_the_python_loss(order, cores):
    """Chunks, centres other than 0, duplicates, any order: Amp's Fortran trains what its Python defines."""
    fmodules = pytest.importorskip("amp.fmodules")
    assert fmodules
    sample = [images()[k] for k in order]
    calc, hashed = set_up(sample, nft_ids_of(images()), cores)
    assert calc.cores == 1 and calc.model.fortran
    fortran, parameters = loss_and_gradient(calc, hashed)
    loss = calc.model.lossfunction
    loss.parameters["weight_duplicates"] = True  # as the Fortran loss always does
    hash_images("sample.traj")  # Amp keeps the duplicates of what it hashed last
    python = loss.calculate_loss(parameters, lossprime=True)
    np.testing.assert_allclose(fortran["loss"], python[0], rtol=1e-10)
    np.testing.assert_allclose(fortran["dloss_dparameters"], python[1], rtol=1e-8, atol=1e-12)
    names = ("energy_loss", "force_loss", "energy_maxresid", "force_maxresid")
    np.testing.assert_allclose([fortran[name] for name in names], python[2:], rtol=1e-9)


def test_loss_of_a_chunk_is_the_error_of_its_central_force():
    """Against the definition, with forces by Amp's calculator: alpha / 3 times the squared error."""
    sample = [images()[k] for k in (4, 3, 4)]
    calc, hashed = set_up(sample, nft_ids_of(images()))
    result, _ = loss_and_gradient(calc, hashed)
    calc.save("now.amp")
    loaded = Amp.load("now.amp", label="now")
    errors = [loaded.get_forces(images()[k])[CENTRES[k]] - images()[k].get_forces()[CENTRES[k]] for k in (4, 3, 4)]
    np.testing.assert_allclose(result["loss"], 0.04 / 3 * np.sum(np.square(errors)), rtol=1e-9)


def test_without_our_alignment_amp_fails():
    """The defect that `align` is for: if this passes one day, Amp was fixed."""
    pytest.importorskip("amp.fmodules")
    sample = [images()[k] for k in (0, 1, 2, 4)]
    calc, hashed = set_up(sample, nft_ids_of(images())[1:2], aligned=False)
    with pytest.raises(IndexError):
        loss_and_gradient(calc, hashed)


def test_energy_criterion_counts_the_images_with_energies():
    calc, _ = set_up([images()[k] for k in (0, 3, 4, 1)], nft_ids_of(images()))
    criterion = calc.model.lossfunction.parameters["convergence"]["energy_rmse"]
    assert criterion == pytest.approx(0.001 * np.sqrt(2 / 4))


def test_missing_criteria_do_not_crash_amps_log():
    calc, hashed = set_up([images()[0]], None)
    loss = calc.model.lossfunction
    loss.parameters["convergence"].update(energy_rmse=None, force_rmse=None, force_maxresid=1e9)
    script.align(calc, "sample.traj")
    loss_and_gradient(calc, hashed)
    assert loss.check_convergence(1.0, 1.0, 1.0, 1.0, 1.0)
    assert read_last_step(Path("amp-log.txt")).criteria == {"force_maxresid": 1e9}


def test_fresh_start_forgets_given_weights():
    calc, _ = set_up([images()[0]], None)
    calc.model.parameters.update(weights={"Cu": 1}, scalings={"Cu": 1}, fprange={"Cu": 1})
    calc.model.randomseed = 5
    script.prepare(calc, seed=8, fresh=True)
    assert calc.model.randomseed == 8
    assert [calc.model.parameters[name] for name in ("weights", "scalings", "fprange")] == [None] * 3


# -- whole trainings -----------------------------------------------------------------------------------------


def test_serial_training_leaves_what_amp_leaves(log):
    outcome = jobs(log).train(task())
    for member in range(2):
        directory = Path("al-training", str(member))
        assert {"run.py", "amp.amp", "converged", "amp-log.txt"} <= set(os.listdir(directory))
        assert (directory / "amp.amp").read_text() == outcome.texts[member]
        sample = read(f"al-training/training-images/{member}.traj", index=":")
        assert len(sample) == task().weights_mi[member].sum()
        report = outcome.reports[member]
        assert (report.member, report.converged, report.steps, report.attempts) == (member, False, 6, 1)
        assert "Stopped at its limit of steps" in report.message and "asked: 0.01" in report.message
    write_ensemble("al.ensemble", outcome.texts)
    ensemble = BootStrap(load="al.ensemble", label="plain").ensemble
    assert [calc.get_forces(images()[3]).shape for calc in ensemble] == [(8, 3), (8, 3)]
    check_report_against_amp(ensemble[0], outcome.reports[0])
    check_warm_start(outcome, log)


def check_report_against_amp(calc, report):
    """Return the numbers of a report, from the forces and energies of the saved potential."""
    drawn = task().weights_mi[0]
    bulk_cells = [(image, w) for image, w in list(zip(images(), drawn, strict=True))[:3] if w]
    errors = [(calc.get_potential_energy(i) - i.get_potential_energy()) / len(i) for i, _ in bulk_cells]
    mean = sum(w * e**2 for (_, w), e in zip(bulk_cells, errors, strict=True)) / len(bulk_cells)
    assert report.energy_rmse == pytest.approx(np.sqrt(mean), rel=1e-3)  # the log has five digits
    assert report.energy_maxresid == pytest.approx(np.abs(errors).max(), rel=1e-3)
    differences = [calc.get_forces(i) - i.get_forces() for i, _ in bulk_cells]
    differences += [(calc.get_forces(images()[k]) - images()[k].get_forces())[CENTRES[k]] for k in (3, 4)]
    assert report.force_maxresid == pytest.approx(max(np.abs(d).max() for d in differences), rel=1e-3)


def check_warm_start(outcome, log):
    """Return a retraining starts from the weights that it is given."""
    again = jobs(log).train(one_member(start=outcome.texts[:1], iteration=1))
    initial = read_amp(Path("al-training/0/amp-initial-parameters.amp").read_text())
    given = read_amp(outcome.texts[0])
    np.testing.assert_array_equal(initial.weights["Cu"][0], given.weights["Cu"][0])
    assert again.reports[0].loss < outcome.reports[0].loss


def test_jobs_fit_with_the_kernels_where_they_can(log):
    """Amp's files from our fit, with numbers that hold for the potential in them; then a warm start."""
    pytest.importorskip("amp.nft.training.batched_fit")
    trainer = jobs(log, CALC_TEXT.replace("maxiter=5", "maxiter=60"))
    first = trainer.train(one_member(targets=[images()[3]]))
    assert "trains with amp.nft" in log.text
    directory = Path("al-training/0")
    assert {"run.py", "amp.amp", "converged", "amp-log.txt"} <= set(os.listdir(directory))
    assert read_last_step(directory / "amp-log.txt").loss == pytest.approx(first.reports[0].loss, rel=1e-4)
    check_report_against_amp(Amp.load(str(directory / "amp.amp"), label="plain"), first.reports[0])
    again = trainer.train(one_member(start=first.texts, iteration=1, targets=[images()[3]]))
    assert again.reports[0].loss <= first.reports[0].loss * (1 + 1e-6)


def test_amp_trains_where_there_is_no_target(log):
    jobs(log).train(one_member())
    assert "trains with Amp: no target was given" in log.text


@pytest.mark.parametrize(
    ("texts", "why"), [({"line": f"{train_line}  # by Amp"}, "the user's own"), ({"calc_text": NEVER_MET}, "regressor")]
)
def test_amp_trains_where_the_kernels_may_not(texts, why, log):
    assert why in choose_trainer("jobs", options(**texts), threads=1, log=log).trainer.obstacle
    assert choose_trainer("jobs", options(), threads=1, log=log).trainer.obstacle is None


@pytest.mark.fortran
def test_killed_job_is_noticed_and_gives_the_same_result(log):
    """A job in the background gets kill -9: the log says so, and it is started again."""
    text = CALC_TEXT.replace("maxiter=5", "maxiter=400")
    thread, outcome = in_background(lambda: jobs(log, text, BACKGROUND).train(one_member()))
    os.kill(wait_for_running().process.pid, signal.SIGKILL)
    wait_for(lambda: "ended without a message" in log.text)
    thread.join(PATIENCE)
    assert outcome[0].reports[0].attempts == 2
    assert outcome[0].texts == jobs(Log(), text).train(one_member()).texts


def test_job_that_raises_is_given_up_with_its_traceback(log):
    text = CALC_TEXT.replace("\nloss =", "\nif os.path.exists('run.py'): raise RuntimeError('no such luck')\nloss =")
    with pytest.raises(JobError, match=r"member 0 failed 2 times.*no such luck") as error:
        jobs(log, text, retries=1).train(task())
    assert str(Path("al-training/0").absolute()) in str(error.value)
    assert log.text.count("Member 0: its job failed: RuntimeError: no such luck") == 2
    assert "Traceback (most recent call last)" in log.text


DAEMON = """
if 'run.py' in os.listdir():
    import subprocess, sys, tempfile
    own = tempfile.gettempdir()
    tempfile.tempdir = {scratch!r}
    code = "import subprocess as s; print(s.Popen(['sleep', '600'], start_new_session=True, stdout=s.DEVNULL).pid)"
    pid = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True).stdout
    os.chdir(tempfile.tempdir)
    open('note', 'w').write(own + ' ' + pid)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_that_is_ended_takes_along_what_it_started_and_nothing_of_the_users(number, log, tmp_path):
    """The user's lines change the temporary and the working directory, and start a program that leaves its session."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "result.dat").touch()
    text = CALC_TEXT + "import time\n" + DAEMON.format(scratch=str(scratch))
    thread, outcome = in_background(lambda: jobs(log, text, BACKGROUND, retries=0).train(one_member()))
    wait_for((scratch / "note").exists)
    own, pid = wait_for((scratch / "note").read_text).split()
    daemon = psutil.Process(int(pid))
    os.kill(job_state.read_state(Path("al-training/0")).process.pid, number)
    thread.join(PATIENCE)
    assert isinstance(outcome[0], JobError)
    assert ("ended by SIGTERM" in str(outcome[0])) == (number == signal.SIGTERM)
    wait_for(lambda: not runs(daemon))
    assert {path.name for path in scratch.iterdir()} == {"note", "result.dat"}
    assert Path(own).exists() == (number == signal.SIGKILL)  # the job's own temporary directory


@pytest.mark.parametrize("command", ["no-such-python-here run.py &", f"{sys.executable} -c 'import nowhere' &"])
def test_job_in_the_background_that_never_begins(command, log):
    with pytest.raises(JobError, match="ended before it began") as error:
        jobs(log, command=command, retries=0).train(one_member())
    assert "not found" in str(error.value) or "No module named" in str(error.value)
    assert sys.executable in str(error.value)


def test_job_that_a_queue_starts_with_the_wrong_python(log):
    handed_over = f"nohup {sys.executable} -I -S run.py > queue.out 2>&1 & true"  # returns at once, as sbatch does
    with pytest.raises(JobError, match="No module named"):  # not "has not begun within"
        jobs(log, command=handed_over, retries=0, queueing=PATIENCE).train(one_member())


def test_start_command_that_fails(log):
    with pytest.raises(JobError, match="ended with status 3"):
        jobs(log, command="echo queue is closed >&2; exit 3", retries=0).train(one_member())
    assert "| queue is closed" in log.text


def test_job_that_never_leaves_the_queue(log):
    with pytest.raises(JobError, match=r"has not begun within 0\.5 s"):
        jobs(log, command="echo Submitted batch job 17", retries=0, queueing=0.5).train(one_member())
    assert "| Submitted batch job 17" in log.text


def test_job_that_hands_over_to_a_queue(log):
    """The start command returns at once, and the job begins later, in a process of its own."""
    command = f"setsid sh -c 'sleep 1; {SERIAL}' > queue.out 2>&1 & echo Submitted batch job 17"
    outcome = jobs(log, command=command).train(one_member())
    assert outcome.reports[0].steps == 6
    assert "Submitted" in Path("al-training/0/job-output.txt").read_text()


@pytest.mark.slow
@pytest.mark.engines
def test_slurm_job_that_is_cancelled_is_noticed_and_submitted_again(slurm, log):
    text = CALC_TEXT.replace("maxiter=5", "maxiter=2000")
    trainer = jobs(log, text, "sbatch run.py", "#SBATCH -n 1\n#SBATCH --mem=500")
    thread, outcome = in_background(lambda: trainer.train(one_member()))
    wait_for_running()
    number = Path("al-training/0", job_state.OUTPUT).read_text().split()[-1]
    subprocess.run(["scancel", number], check=True)
    thread.join(PATIENCE)
    assert "ended by SIGTERM" in log.text
    assert log.text.count("its job failed") == 1 and "(start 2)" in log.text  # a fit that stalls may start once more
    assert outcome[0].reports[0].steps == 2001


def test_members_that_do_not_converge_restart_and_keep_the_best(log):
    outcome = jobs(log, NEVER_MET, restarts=1).train(one_member())
    report = outcome.reports[0]
    assert not report.converged and report.attempts == 2
    assert "Not converged in 2 attempts: energy_rmse" in report.message
    assert log.text.count("Starting again from new random weights") == 1
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in log.lines if "not converged" in line]
    assert len(losses) == 1 and report.loss <= losses[0] * (1 + 1e-3)  # four digits in the log
    assert Path("al-training/0/amp.amp").read_text() == outcome.texts[0]


def test_hanging_job_expires(log):
    """`expired`: the age of Amp's log at which a job counts as hung."""
    text = CALC_TEXT + "import time\nif ensemble_index == 0 and 'run.py' in os.listdir(): time.sleep(1000)\n"
    with pytest.raises(JobError, match=r"did not change for 1 s \(raise `expired`"):
        jobs(log, text, BACKGROUND, expired=1.0, retries=0).train(one_member())
    left = job_state.read_state(Path("al-training/0"))
    assert has_ended(left.process)


@pytest.mark.slow
def test_silent_job_on_another_machine(log):
    """A process that cannot be asked is given up when its heartbeat stops."""
    trainer = jobs(log, ENDLESS, BACKGROUND, ELSEWHERE, retries=0)
    trainer.limits = type(trainer.limits)(expired=3600.0, silence=20.0)
    thread, outcome = in_background(lambda: trainer.train(one_member()))
    left = wait_for_running()
    assert left.process.machine.startswith("elsewhere") and not socket.gethostname().startswith("elsewhere")
    time.sleep(2 * script.BEAT)
    assert thread.is_alive()
    os.kill(left.process.pid, signal.SIGKILL)
    thread.join(PATIENCE)
    assert isinstance(outcome[0], JobError) and "no heartbeat from elsewhere" in str(outcome[0])


@pytest.mark.slow
def test_job_that_is_not_wanted_any_more_ends_itself(log):
    """On another machine it cannot be killed: it sees that its token is gone."""
    thread, outcome = in_background(lambda: jobs(log, ENDLESS, BACKGROUND, ELSEWHERE, retries=0).train(one_member()))
    left = wait_for_running()
    Path("al-training/0", job_state.TOKEN).write_text("another")
    here = replace(left.process, machine=machine())
    wait_for(lambda: has_ended(here))
    Path("al-training/0", job_state.FAILURE).write_text("enough")
    thread.join(PATIENCE)
    assert isinstance(outcome[0], JobError)
    assert "given up or replaced" in Path("al-training/0", job_state.OUTPUT).read_text()


DRIVER = """
import sys
sys.path[:0] = {paths!r}
import test_amp_jobs as t
t.jobs(print, {calc_text!r}, t.BACKGROUND).train(t.one_member())
"""


def test_jobs_left_by_a_killed_driver_are_ended_and_the_training_starts_clean(log):
    code = DRIVER.format(paths=[str(Path(__file__).parents[k]) for k in (0, 1)], calc_text=ENDLESS)
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    left = wait_for_running(driver=driver)
    driver.kill()
    driver.wait()
    assert not has_ended(left.process)
    outcome = jobs(log).train(one_member())
    assert has_ended(left.process)
    assert log.text.count("a job that an earlier run left") == 1
    Path("clean").mkdir()
    os.chdir("clean")
    assert outcome.texts == jobs(Log()).train(one_member()).texts


@pytest.mark.slow
def test_interrupted_driver_takes_its_jobs_along(log):
    def interrupt(message):
        log(message)
        if "(start 2)" in message:
            raise KeyboardInterrupt

    def train():
        with pytest.raises(KeyboardInterrupt):
            jobs(interrupt, ENDLESS, BACKGROUND).train(task())
        return "interrupted"

    thread, outcome = in_background(train)
    left = [wait_for_running(0), wait_for_running(1)]
    os.kill(left[0].process.pid, signal.SIGKILL)
    thread.join(PATIENCE)
    assert outcome == ["interrupted"] and all(has_ended(job.process) for job in left)


@pytest.mark.slow
def test_without_fortran_it_trains_and_says_so(log):
    """The same result as with Fortran, more slowly."""
    hide = "import sys\nsys.modules['amp.fmodules'] = None"
    in_python = jobs(log, headerlines=hide).train(one_member()).reports[0]
    assert "Fortran modules are missing" in log.text
    in_fortran = jobs(log).train(one_member()).reports[0]
    assert in_python.loss == pytest.approx(in_fortran.loss, rel=1e-4)  # five digits in Amp's log
    assert log.text.count("Fortran modules are missing") == 1


def test_asking_for_more_cores_is_answered(log):
    calc, _ = set_up([images()[0]], None, cores=7)
    assert calc.cores == 1
    assert "cores={'localhost': 7} ignored" in Path("amp-log.txt").read_text()


# -- before any work -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["no-such-program-here run.py", "", "  ", "A=1", "python 'run.py", "A=1 no-such-thing x"])
def test_start_command_is_checked(command):
    with pytest.raises(ValueError, match="start_command"):
        check_start_command(command)


@pytest.mark.parametrize("command", [SERIAL, BACKGROUND, "A=1 sh run.py", "cd . && sh run.py", "nohup sh run.py &", "./later"])
def test_accepted_start_commands(command):
    check_start_command(command)


def test_relative_start_command_is_looked_up_from_the_members_directory(tmp_path):
    (tmp_path / "submit.sh").touch()
    (tmp_path / "0").mkdir()
    check_start_command("../submit.sh run.py", tmp_path / "0")
    with pytest.raises(ValueError, match=r"submit\.py"):
        check_start_command("../submit.py run.py", tmp_path / "0")


@pytest.mark.parametrize(
    ("where", "text"),
    [("line", "calc.train("), ("headerlines", "#SBATCH -n 1\nimport"), ("calc_text", "calc = (")],
)
def test_texts_that_make_no_script_raise_before_any_work(where, text, log):
    with pytest.raises(ValueError, match="valid job script"):
        jobs(log, **{where: text})
    assert os.listdir() == []


def test_hostile_text_to_start_from_never_reaches_amp(log):
    with pytest.raises(AmpFileError, match="system"):
        jobs(log).train(one_member(start=["__import__('os').system('touch mark')"]))
    assert "mark" not in os.listdir() + os.listdir("al-training/0")


def test_images_that_amp_cannot_tell_apart(log):
    twice = [*images()[:2], images()[0]]
    with pytest.raises(ValueError, match="same atoms"):
        jobs(log).train(TrainingTask(twice, [None, None, ForceRows.central(0)], np.ones((1, 3), int), None, 0, 0))


def test_script_keeps_queue_lines_at_the_top():
    text = script_text(JobOptions("calc = 1", "#SBATCH -n 1", train_line, "", Path("x")), token="t", directory=Path("x"), seed=1)
    assert text.splitlines()[:2] == ["#!/usr/bin/env python3", "#SBATCH -n 1"]


# -- databases and logs --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_shared_database_is_read_atomically():
    """A reader beside a writer that is killed again and again."""
    code = (
        "from amp.nft.training.amp_jobs.database import SharedDatabase\n"
        "d = SharedDatabase('x')\nprint('ready', flush=True)\nwhile True: d['key'] = list(range(50_000))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"ready\n"
        wait_for(lambda: "key" in SharedDatabase("x").keys())
        for _ in range(50):
            assert len(SharedDatabase("x")["key"]) == 50_000
        writer.kill()
    assert len(SharedDatabase("x")["key"]) == 50_000 and SharedDatabase("x").keys() == ["key"]


def test_shared_database_opens_no_file_of_a_guessed_name():
    database = SharedDatabase("x")
    Path("victim").write_text("kept")
    Path(database.path, f"key.{socket.gethostname()}.{os.getpid()}").symlink_to(Path("victim").absolute())
    database["key"] = [1]
    assert SharedDatabase("x")["key"] == [1] and Path("victim").read_text() == "kept"


def test_shared_database_keeps_little_and_forgets_nothing():
    database = SharedDatabase("x")
    for k in range(3 * KEPT):
        database[f"k{k}"] = [k]
    assert len(database._recent) == KEPT
    assert [database[f"k{k}"] for k in range(3 * KEPT)] == [[k] for k in range(3 * KEPT)]
    assert database["k0"] is database["k0"]
    with pytest.raises(KeyError):
        database["missing"]


def test_databases_of_another_calc_text_are_dropped():
    files = TrainingDirectory(Path("al-training"))
    files.lay_out(one_member(), "one")
    SharedDatabase("al-training/amp-db-fingerprints")["key"] = 1
    files.lay_out(one_member(), "one")
    assert SharedDatabase("al-training/amp-db-fingerprints")["key"] == 1
    files.lay_out(one_member(), "other")
    assert list(SharedDatabase("al-training/amp-db-fingerprints").keys()) == []


def test_last_step_without_forces_or_table():
    log = Path("amp-log.txt")
    assert read_last_step(log) is None
    log.write_text(" Loss function convergence criteria:\n  energy_rmse: 0.001\n  energy_maxresid: None\n")
    assert read_last_step(log) is None
    loss = LossFunction()
    with open(log, "a") as file:
        file.write("    7 2026-01-02T03:04:05   1.5000e+00 2.0000e-03 - 3.0000e-03 C\n  9 2026-01\n")
    last = read_last_step(log, energy_factor=2.0)
    assert (last.steps, last.loss, last.values["energy_rmse"]) == (7, 1.5, 0.004)
    assert np.isnan(last.values["force_rmse"]) and loss.parameters["force_coefficient"]
    assert last.misses() == "energy_rmse 0.004 (asked: 0.002)"


def test_slow_fingerprints_show_in_the_log(monkeypatch):
    """A job that makes progress does not expire."""
    monkeypatch.setattr("amp.nft.training.amp_jobs.database.PROGRESS", 0.0)
    calc, hashed = set_up([images()[0], images()[3]], None)
    calc.descriptor.calculate_fingerprints(hashed, calculate_derivatives=True)
    assert Path("amp-log.txt").read_text().count("amp.nft: 2 images so far.") == 3


def test_a_job_knows_whether_its_member_may_begin_again(tmp_path, monkeypatch):
    """A member that stalled at the last training stalls again: three attempts would cost a queue three times the hours."""
    files = TrainingDirectory(tmp_path / "al-training")
    for retry_m in (None, (True, False)):
        task = TrainingTask(images(), ROWS, np.ones((2, 5), dtype=int), None, seed=1, iteration=1, retry_m=retry_m, targets=images()[:1])
        files.lay_out(task, CALC_TEXT)
        files.write_task(task)
        for member in (0, 1):
            monkeypatch.chdir(files.clear_member(member, None))
            assert kernel_fit._this_members_task(seed=0).retry_m == (retry_m and (retry_m[member],))
