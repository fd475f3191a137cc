"""NFT: the class that users call. It checks its arguments and starts the loop."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from amp.nft.activelearner.chunk_labels import Carving
from amp.nft.activelearner.early_checks import check_baseline, check_correction, compare_radii, distinct_rule, explain_threshold
from amp.nft.activelearner.inheritance import Inheritance
from amp.nft.activelearner.limits import Limits, check_limits
from amp.nft.activelearner.loop import Loop
from amp.nft.activelearner.method import check_beginning, check_method, check_number_of_models, check_trainer, choose_method
from amp.nft.activelearner.run_settings import changed_versions, circumstances, identity, note_interruption
from amp.nft.activelearner.setup import Setup
from amp.nft.activelearner.start_checks import check_start, fitting_method
from amp.nft.activelearner.stopping import Iteration, StopReason, certain_enough, enough_iterations, no_improvement
from amp.nft.amp_io import calc_text_of
from amp.nft.amp_io.bootstrap_texts import calc_text as default_calc_text
from amp.nft.amp_io.bootstrap_texts import headerlines as default_headerlines
from amp.nft.amp_io.bootstrap_texts import train_line as default_train_line
from amp.nft.amp_io.card import checked_terms
from amp.nft.amp_io.log import Logger, RunLog
from amp.nft.chunks import Convergence, Gate
from amp.nft.chunks.termination import Termination
from amp.nft.inputs import arguments, structures
from amp.nft.inputs.geometry import check_chunks
from amp.nft.labels.executors import Executors
from amp.nft.labels.pool import check_label_options
from amp.nft.labels.single_point import Parent
from amp.nft.records import ForceRows, JobOptions, LabelOptions
from amp.nft.run import Progress
from amp.nft.run.store import RunStore, explains_full_disks
from amp.nft.run.verdict import Verdict, verdict_of
from amp.nft.system.signals import stops_cleanly
from amp.nft.training.choose import Choice, choose_trainer, read_start
from amp.nft.training.command import Command
from amp.nft.uncertainty.forces import CONFIDENCE, check_threshold

start_command = "python3 run.py &"


class NFT:
    """Nearsighted force training: an ensemble for a structure too large for its parent method.

    Parameters
    ----------
    load : str, optional
        An ``.ensemble`` file to start the first training from.
    log : str, path or amp.utilities.Logger, optional
        Where to log; standard output if not given. Everything also goes to the `logging` module, under ``amp.nft``.
    threshold : float, optional
        Rule for the atoms to label next: above 0, those whose uncertainty exceeds that many eV/Å; between -1 and 0, the
        most uncertain fraction ``1 + threshold`` (-0.9 takes 10 %); None, the most uncertain atom.
    stop_delta : float
        Stop when the largest per-atom uncertainty on the target is below this, eV/Å.
    max_iterations : int
        Stop after this many retrainings. (Amp 1.0.1 trains once more and throws that ensemble away.)
    steps_not_improved : int
        Stop when the largest uncertainty has not improved for this many iterations.
    dblabel : str
        Prefix of Amp's database files, where Amp itself has to evaluate the ensemble (models that are not
        Gaussian fingerprints with a neural network).
    seed : int
        Seed of everything random. The same seed and input give the same ensemble.
    trainer : 'auto', 'batched', 'jobs' or Command
        How members are trained: all in this process, or as one Amp job each. 'auto' takes the first where it can. A
        :class:`amp.nft.training.Command` trains models of another program; `calc_text` and the other texts of `run` are not used then.
    threads : int, optional
        Threads of the batched trainer and of predictions; the processor cores that this process may use if not given.
        Results do not depend on it.
    progress : bool
        Show the progress of the run, in a terminal or a notebook. Elsewhere nothing is shown;
        ``amp-nft status`` tells it from the run's files.
    method : {'paper', 'robust'}
        Defaults of `run`: the published method, or the one for parents whose chunks are not exact stand-ins for the target: all
        forces of a chunk weighted by their label error, members stopped at their out-of-bag minimum, cut bonds terminated,
        and, with no `threshold`, batches of 3, 6, 12, ... atoms far apart.

    Attributes
    ----------
    history : list of Iteration
        Results of each iteration.
    verdict : Verdict or None
        State of the last run's ensemble, with bounds of its errors: ``.state``, ``.sentence``, ``.mean_bound``, ``.max_bound``.
    stop_reason : StopReason or None
        Why the last run stopped: ``.name``, ``.message``, ``.converged``.

    Raises
    ------
    ValueError
        For a setting outside its range.

    Notes
    -----
    C. Zeng, X. Chen, A. A. Peterson, J. Chem. Phys. 156, 064104 (2022), doi:10.1063/5.0079314.
    """

    def __init__(
        self,
        load: str | None = None,
        log: str | PathLike[str] | Logger | None = None,
        threshold: float | None = None,
        stop_delta: float = 0.1,
        max_iterations: int = 5,
        steps_not_improved: int = 2,
        dblabel: str = "amp-data",
        *,
        seed: int = 0,
        trainer: str | Command = "auto",
        threads: int | None = None,
        progress: bool = True,
        method: str = "paper",
    ) -> None:
        check_threshold(threshold)
        explain_threshold(threshold)
        check_method(method)
        arguments.check_positive(stop_delta=stop_delta)
        arguments.check_count("max_iterations", max_iterations, least=0)
        arguments.check_count("steps_not_improved", steps_not_improved, least=1)
        arguments.check_count("seed", seed, least=0)
        if threads is not None:
            arguments.check_count("threads", threads, least=1)
        self.load = load
        self.log = RunLog(log)
        self.threshold = threshold
        self.stop_delta = stop_delta
        self.max_iterations = max_iterations
        self.steps_not_improved = steps_not_improved
        self.dblabel = dblabel
        self.seed = seed
        self.trainer = trainer
        self.threads = threads
        self.progress = progress
        self.method = method
        self.history: list[Iteration] = []
        self.stop_reason: StopReason | None = None
        self.verdict: Verdict | None = None
        self.inheritance: Inheritance | None = None  # labels of another run, which `refine` names

    def run(
        self,
        images: structures.Images | None,
        target_image: structures.Images,
        n: int = 10,
        calc_text: Any = default_calc_text,
        headerlines: str = default_headerlines,
        start_command: str = start_command,
        train_line: str = default_train_line,
        label: str = "al",
        parent_calc: Parent | None = None,
        expired: float = 600.0,
        cutoff: float = 6.5,
        init_nft_ids: list[tuple[str, int]] | None = None,
        dft_cores: int | None = None,
        dft_memory: str | None = None,
        *,
        executor: Executors | None = None,
        label_timeout: float | None = None,
        label_retries: int = 1,
        distinct: float | None = None,
        accept_parent: bool = False,
        forces: str | None = None,
        fit_until: str | None = None,
        termination: Termination | None = None,
        min_atoms: int | None = None,
        check_parent: str | bool | None = None,
        test_labels: int | None = None,
        larger_labels: int | None = None,
        aim: float | None = None,
        images_calc: Parent | None = None,
        batch: str | None = None,
        correction: Parent | None = None,
        gate: Gate | Convergence | None = None,
        baseline: Parent | None = None,
        notes: dict[str, Any] | None = None,
        card: dict[str, str | None] | None = None,
        energy_key: str | None = None,
        forces_key: str | None = None,
        until: Mapping[str, float] | None = None,
        dry_run: bool = False,
    ) -> bool:
        """Train an ensemble until it is certain enough of the forces on the target.

        Rerun the script to resume after a crash, or with other stop criteria.

        Parameters
        ----------
        images : list of Atoms, Atoms, a file that ASE reads, or None
            Initial training images, with energies and forces; small bulk cells for example. None: chunks around 14 atoms of the
            target, where all forces of a chunk are trained; their energies are trained then, too.
        target_image : Atoms, list of Atoms, or a file that ASE reads
            The structure to learn. Several are learned together: uncertainties run over the atoms of all, counted on
            from one to the next, and chunks come from any.
        n : int
            Members of the ensemble.
        calc_text : str, dict or Amp
            Python text that builds an Amp calculator named ``calc``; the calculator itself; or settings of one: ``cutoff`` of the
            fingerprints (6.0 Å), ``features`` ('g2x'), ``hiddenlayers`` ((5, 5)), the criteria ``energy_rmse`` (0.001 eV/atom),
            ``force_rmse`` (0.005) and ``force_maxresid`` (0.02 eV/Å), ``force_coefficient`` (0.04), ``maxiter`` (3000).
        headerlines : str
            Text on top of each job script, such as ``#SBATCH`` lines.
        start_command : str
            Starts the job script ``run.py`` in its directory: ``python run.py``, ``python run.py &``, ``sbatch run.py``.
        train_line : str
            The line of the job script that trains ``calc`` on ``trainfile``.
        label : str
            Name of the results: ``<label>.ensemble``, ``best.<label>.ensemble``, ``<label>-training``.
        parent_calc : ASE calculator, or callable
            Labels the chunks; a callable ``f(directory)`` returns a fresh calculator for each.
        expired : float
            A job whose log has not changed for this many seconds is started again.
        cutoff : float
            Radius of a chunk, Å.
        init_nft_ids : list of (hash, index), optional
            Images among `images` of which only the force on one atom is trained.
        dft_cores, dft_memory : int, str
            Accepted for old scripts, and not used: `parent_calc` and `executor` say how labels are made.
        executor : concurrent.futures.Executor, or callable that returns a new one, optional
            Makes the labels: processes, a Dask cluster, Slurm jobs. A callable is called for each batch, and its
            executor shut down after it. Labels are made in this process if not given.
        label_timeout : float, optional
            Seconds after which a label has failed.
        label_retries : int
            Further attempts at a label that failed, before the next most uncertain atom takes its place.
        distinct : float, optional
            Of the atoms that `threshold` selects, skip those whose fingerprints lie within this of those of an atom that is
            picked or was labelled before, so that no label is spent on a duplicate environment: the root mean square difference of
            fingerprints that are scaled to between -1 and 1 over the target. Where none is left, the chunk that is most like
            the most uncertain atom's is drawn again. All that are picked are labelled if not given.
        accept_parent : bool
            Resume a run whose labels are by another parent, and mix the labels of both. Without it a changed parent is an
            error that shows the difference.
        forces : {'centre', 'weighted', 'all'}, optional
            Forces of a chunk that are trained: the central one; all, weighted by floor² / (sigma(depth)² + floor²), where
            sigma is the label error that overlapping chunks show; or all with equal weights. `method` sets the default.
        fit_until : {'criteria', 'out-of-bag'}, optional
            When a member's training ends: at the criteria of `calc_text`, or at the smallest error on the chunks that its
            bootstrap sample lacks.
        termination : {'sphere', 'hydrogen', 'molecules', 'neutral', 'auto'} or callable, optional
            Treatment of the bonds that a chunk cuts, see :func:`amp.nft.chunks.carve_chunks`.
        min_atoms : int, optional
            Least number of atoms of a chunk; the radius of smaller ones grows. `method` "robust" takes 25 where molecules lie on a surface.
        check_parent : {'error', 'warn', False}, optional
            Before the first training let the parent label one of `images`, and raise or warn if it gives other forces or another
            energy than those stored: other units, another functional, another parent.
        test_labels : int, optional
            Labels of atoms drawn at random after the last training, which bound the errors on the target; see `verdict`.
        larger_labels : int, optional
            Number of these that are labelled again in a chunk with a radius larger by 2 Å, to estimate the error of the labels.
        aim : float, optional
            Mean force error that is sufficient, eV/Å; ``stop_delta / 2.58`` if not given.
        images_calc : ASE calculator, or callable, optional
            Labelled the images; the smallest periodic cells are doubled before the first training, and must keep energy and forces.
        batch : {'top', 'spread'}, optional
            'spread': of four times as many uncertain atoms as `threshold` selects, label those whose forces tell most together, by the
            log determinant of their posterior covariance. It is useful for batches of 16 and more.
        correction : ASE calculator, or callable, optional
            A cheap calculator that labels each target and each chunk too: F_parent(chunk) + F_cheap(target) - F_cheap(chunk) is trained,
            on the target. Ten larger chunks judge it before the first training.
        gate : Gate or Convergence, optional
            Judgement of the correction from `amp.nft.chunks.convergence(..., cheap=...)`: no larger chunks are labelled.
        baseline : ASE calculator, or callable, optional
            A cheap calculator to which the members add: they learn what labels have beyond it, in each structure and chunk, and
            :class:`amp.nft.calculator.EnsembleCalculator` needs it too. See :doc:`/baseline`.
        notes : dict, optional
            Plain data that the journal records at this start, such as the text of an input file. It changes nothing.
        card : dict, optional
            ``licence``, ``citation`` and ``date`` as texts for the model card in ``best.<label>.ensemble``; they may change at each start.
        energy_key, forces_key : str, optional
            Names of the energy in ``info`` and of the forces in the arrays of `images`, where they are not ASE's results.
        until : dict, optional
            Limits of this start, after which the run can continue: ``{"labels": 100}`` of the whole run, those of its test included;
            ``"iterations"`` of the whole run; ``"hours"`` of this start, after which no training and no label begins; labels
            that run are finished.
        dry_run : bool
            Check all arguments, return False, and start and write nothing.

        Returns
        -------
        bool
            True if the largest uncertainty went below `stop_delta`; `stop_reason` says more.

        Raises
        ------
        ValueError, TypeError, FileNotFoundError
            For input that cannot work, before any work starts.
        CorrectionError
            If the correction does not help, or cannot be applied; before anything is trained.
        RunStoreError
            If the training directory belongs to a running process, or to a run with other settings or labels of another
            parent.
        """
        arguments.check_count("n", n, least=2, why=", since the uncertainty is what members disagree about (10 is usual)")
        arguments.check_lengths(cutoff=cutoff)
        arguments.check_positive(expired=expired)
        arguments.check_texts(headerlines=headerlines, start_command=start_command, train_line=train_line)
        arguments.check_label(label)
        labels = LabelOptions(parent_calc, executor, label_timeout, label_retries, accept_parent)
        for options in (labels, LabelOptions(parent_calc if images_calc is None else images_calc)):
            check_label_options(options)
        terms = checked_terms(card)
        if isinstance(self.trainer, Command) and fit_until is None:
            fit_until = "criteria"  # those of the command
        method = choose_method(
            self.method, forces=forces, fit_until=fit_until, termination=termination, min_atoms=min_atoms, check_parent=check_parent,
            test_labels=test_labels, larger_labels=larger_labels, aim=aim, batch=batch,
        )  # fmt: skip
        check_limits(until)
        check_beginning(method, images is not None)
        training_images = [] if images is None else structures.read_training_images(images, energy_key, forces_key)
        targets = structures.read_targets(target_image)
        method = fitting_method(method, targets, parent_calc)
        if images is not None:
            structures.check_elements(targets, training_images)
        calc_text = calc_text_of(calc_text, sorted({symbol for image in [*training_images, *targets] for symbol in image.symbols}))
        centres = structures.central_atoms(training_images, init_nft_ids)
        rows = [None if atom is None else ForceRows.central(atom) for atom in centres]
        if dft_cores is not None or dft_memory is not None:
            self.log(
                "dft_cores and dft_memory are not used any more: labels are made by parent_calc where executor= runs it, "
                "in this process if there is none; ask for cores and memory there, as in docs/labels.rst."
            )
        directory = Path(f"{label}-training").absolute()  # a label may change the working directory
        jobs = JobOptions(calc_text, headerlines, train_line, start_command, directory, expired)
        choice = choose_trainer(self.trainer, jobs, threads=self.threads, log=self.log)
        check_trainer(method, choice.trainer.name, correction is not None, choice.spec is not None)
        first = check_baseline(baseline, correction, choice.spec)
        check_number_of_models(n, choice.command, self.load)
        for target, name in zip(targets, structures.target_names(targets), strict=True):
            check_chunks(target, cutoff, choice.radius or 6.5, name)  # Amp's default radius
        compare_radii(cutoff, choice.radius, self.log)
        spec = choice.spec
        if spec is not None:  # refuses a calc_text without one of the elements
            spec = spec.resolved([symbol for image in [*training_images, *targets] for symbol in image.symbols])
        carving = Carving(targets, cutoff, method.termination, method.min_atoms)
        first.begin([*training_images, *(carving.sample() if first.name else [])], parent_calc)
        setup = Setup(
            label=label, images=training_images, rows=rows, n=n, seed=self.seed, carving=carving, threshold=self.threshold,
            labels=labels, method=method, dblabel=self.dblabel, threads=self.threads,
            start=first.unmarked(read_start(self.load, n, choice.spec)),
            distinct=distinct_rule(distinct, spec, targets), aim=method.aim or self.stop_delta / CONFIDENCE,
            force_rmse=None if choice.spec is None else choice.spec.convergence.get("force_rmse"),
            spec=spec, images_calc=images_calc, inherit=self.inheritance, correction=correction,
            gate=check_correction(correction, gate, carving), terms=terms, baseline=first,
        )  # fmt: skip
        settings = identity(setup, calc_text, train_line) | {"distinct": distinct} | choice.identity
        return not dry_run and self._carry_out(setup, choice, settings, directory, notes, until)

    def _carry_out(
        self, setup: Setup, choice: Choice, settings: dict[str, Any], directory: Path, notes: dict[str, Any] | None,
        until: Mapping[str, float] | None,
    ) -> bool:  # fmt: skip
        """Run the loop in its directory, resumed if it has begun."""
        rules = [
            certain_enough(self.stop_delta),
            no_improvement(self.steps_not_improved),
            enough_iterations(self.max_iterations),
        ]
        self.stop_reason = None
        with (
            explains_full_disks(),
            RunStore(directory / "saved-info") as store,
            Progress(store, self.progress) as progress,
            self.log.beside(progress.aside),
            stops_cleanly(partial(note_interruption, store), self.log),
        ):
            loop = Loop(setup, store, choice.trainer, self.log, progress.step)
            self.history = loop.history
            loop.limits = Limits.from_now(until, loop.state, setup.method)
            before, now = loop.state().starts, circumstances(self._rules(until), setup, choice)
            loop.open(settings, {**now, **({} if notes is None else {"notes": notes})})
            if message := changed_versions(before, now["versions"]):
                self.log(message)
            self.log(f"Trainer: {choice.trainer.name} ({choice.why}).")
            if not loop.state().iterations:
                check_start(setup, directory / "labels", self.log)
            self.stop_reason = loop.run([*rules, loop.limits])
            self.verdict = verdict_of(loop.state())
        return self.stop_reason.converged

    def _rules(self, until: Mapping[str, float] | None) -> dict[str, Any]:
        """Return the settings of the selection and of the end of a run."""
        rules = {name: getattr(self, name) for name in ("threshold", "stop_delta", "max_iterations", "steps_not_improved")}
        return rules if until is None else {**rules, "until": dict(until)}
