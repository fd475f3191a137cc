"""Run many labels at a time, retry those that fail, and survive failures of the workers."""

from __future__ import annotations

import contextlib
import time
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from functools import partial
from pathlib import Path
from typing import TypeVar

from ase import Atoms

from amp.nft.errors import ExecutorError
from amp.nft.inputs.arguments import check_count, check_positive
from amp.nft.labels.executors import Workers, check_executor
from amp.nft.labels.flight import Flight, Request, overrun
from amp.nft.labels.gate import Label, LabelFailure
from amp.nft.labels.identity import digest_of, identify
from amp.nft.labels.single_point import RESULT, WORKER, LabelTask, carry_out, check_parent, labelled_atom, left_label
from amp.nft.records import LabelOptions
from amp.nft.system.liveness import DRIVER, Driver, Heartbeat, read_process, watch_forks
from amp.nft.system.processes import end, has_ended, machine, marked, this_process
from amp.nft.system.signals import Terminated

Key = TypeVar("Key", bound=Hashable)
LARGEST = 10**9  # numbers of labels are below this
POLL = 0.5  # s between two looks at the workers
GRACE = 5.0  # s that a worker may take to stop its label by itself
REMINDER = 600.0  # s between two messages on running labels
FALSE_STARTS = 3  # executors in a row that break before any label has begun
CANCELLATIONS = 2  # of all labels in a row, while none is done; a closed Dask client never answers a third request


def check_label_options(options: LabelOptions) -> None:
    """Check that parent, executor, time limit and number of retries can be used.

    Parameters
    ----------
    options : LabelOptions

    Raises
    ------
    TypeError, InputError
        One cannot.
    """
    check_count("label_retries", options.retries, least=0)
    if options.timeout is not None:
        check_positive(label_timeout=options.timeout)
    check_parent(options.parent)
    check_executor(options.executor, options.parent)


class LabelPool:
    """Labels chunks through an executor.

    Use it as a context manager: `request` labels, and take them from `done` as they come.

    Parameters
    ----------
    options : LabelOptions
    directory : path
        Each attempt gets a separate directory in it.
    on_retry : callable, optional
        Is called with (atom, LabelFailure) before a label is tried again.
    log : callable, optional
        Takes a message periodically, while nothing else happens.
    stop : callable, optional
        Returns True when no further label is to begin: `done` then ends after those that run, and yields nothing for the others.
    """

    def __init__(
        self,
        options: LabelOptions,
        directory: Path,
        *,
        on_retry: Callable[[int, LabelFailure], object] = lambda atom, failure: None,
        log: Callable[[str], object] = lambda message: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._parent, self._directory = options.parent, directory.absolute()
        self._digest = digest_of(identify(options.parent))
        self._workers = Workers(options.executor, options.parent)
        self._heartbeat = Heartbeat(directory / DRIVER)
        self._timeout, self._retries, self._on_retry, self._log = options.timeout, options.retries, on_retry, log
        self._stop = stop
        self._heard = time.monotonic()  # of the last label that was done, or of the last reminder
        self._waiting: deque[Request] = deque()
        self._flights: dict[Future, Flight] = {}
        self._done: deque[tuple[int, Label | LabelFailure]] = deque()
        self._false_starts = self._cancellations = 0
        self._watched = -POLL
        self._places: dict[int, list[Path]] = {}  # directories of an atom's labels, of earlier drivers too
        for place in sorted(self._directory.glob("[0-9]*-*")):
            if (atom := labelled_atom(place)) is not None:
                self._places.setdefault(atom, []).append(place)
        self._end_left_programs()

    def __enter__(self) -> LabelPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        for future, flight in self._flights.items():
            _cancel(future)
            if (worker := flight.look()) is not None and worker.machine == machine():
                self._workers.end(worker.pid)
        self._heartbeat.remove()
        stopping = kind is not None and not issubclass(kind, Exception)
        self._workers.close(at_once=stopping)  # a pool with idle workers may hang at the end of the script

    def request(self, atom: int, image: Atoms) -> None:
        """Request the label of a chunk, or use the one that a worker of an earlier driver left.

        Parameters
        ----------
        atom : int
            Central atom in the target.
        image : Atoms
            Chunk.
        """
        for directory in self._places.get(atom, []):
            label = left_label(directory, image, self._digest)
            if isinstance(label, Label):
                self._done.append((atom, label))
                return
            if label is not None:
                self._log(f"The label in {directory} is dropped and made again: {label}")
                (directory / RESULT).unlink(missing_ok=True)
        self._waiting.append(Request(atom, image))

    def done(self) -> Iterator[tuple[int, Label | LabelFailure]]:
        """Yield labels and final failures in the order in which they finish, until none is requested.

        Yields
        ------
        tuple of int and Label or LabelFailure

        Raises
        ------
        ExecutorError
            If the executor is of no use any more. What was yielded is complete and stays good.
        """
        while self._done or self._waiting or self._flights:
            if not self._done:
                self._hand_over()
                self._look_around()
                self._remind()
            while self._done:
                yield self._done.popleft()

    def tidy(self, atom: int) -> None:
        """Remove this package's files from the directories of an atom, and the directories if they are then empty.

        Parameters
        ----------
        atom : int
        """
        for directory in self._places.get(atom, []):
            for remove in ((directory / WORKER).unlink, (directory / RESULT).unlink, directory.rmdir):
                with contextlib.suppress(OSError):  # not there, or there are files of the parent
                    remove()

    def _end_left_programs(self) -> None:
        """End the programs of labels whose worker was killed, an earlier driver itself for example, on this machine."""
        left = [
            place.name for places in self._places.values() for place in places if (made := read_process(place / WORKER)) and has_ended(made)
        ]
        programs = marked(*left) if left else []
        if programs:
            self._log(f"Ending {len(programs)} programs that labels of an earlier run left.")
            end(partial(marked, *left))

    # -- handing over --------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """Submit labels to the executor; a suspect runs alone, to find the label that kills workers."""
        if self._stop():
            self._withdraw()
            return
        if any(flight.request.suspect for flight in self._flights.values()):
            return
        suspect = next((request for request in self._waiting if request.suspect), None)
        if suspect is not None:
            if not self._flights:
                self._waiting.remove(suspect)
                self._start(suspect)
            return
        while self._waiting and len(self._flights) < self._workers.places:
            if not self._start(self._waiting.popleft()):
                return

    def _withdraw(self) -> None:
        """Drop the labels that no worker has begun."""
        self._waiting.clear()
        for future in [future for future, flight in self._flights.items() if flight.look() is None and future.cancel()]:
            del self._flights[future]

    def _start(self, request: Request) -> bool:
        """Send a label off; False if the executor turned out to be broken."""
        name = f"{request.atom}-{uuid.uuid4().hex[:12]}"
        task = LabelTask(name, self._parent, request.image, str(self._directory / name), self._timeout, self._driver(), self._digest)
        flight = Flight(request, task)
        self._places.setdefault(request.atom, []).append(flight.directory)
        try:
            self._beat()
            self._flights[self._workers.submit(carry_out, task)] = flight
        except BrokenExecutor:
            self._recover(extra=[flight])
            return False
        return True

    def _beat(self) -> None:
        """Show this process's heartbeat to workers that exist for it alone."""
        if self._workers.owned:
            watch_forks()
            self._heartbeat.beat()

    def _driver(self) -> Driver:
        """Return the record by which workers know this process."""
        return Driver(this_process(), str(self._heartbeat.path), owns=self._workers.owned)

    # -- looking around ------------------------------------------------------------------------------------

    def _look_around(self) -> None:
        """Collect finished labels, and handle failures."""
        self._beat()
        finished, _ = wait(self._flights, timeout=POLL, return_when=FIRST_COMPLETED)
        broken = cancelled = False
        for future in finished:
            if future.cancelled():
                cancelled = True
                continue
            try:
                data = future.result(timeout=0)
            except BrokenExecutor:
                broken = True
                continue
            except (KeyboardInterrupt, Terminated):
                raise
            except BaseException as error:  # of the executor: it could not send or run the task
                self._settle(self._flights.pop(future), LabelFailure(type(error).__name__, str(error)))
                continue
            flight = self._flights.pop(future)
            self._settle(flight, flight.checked(data))
        if broken:
            self._recover()
        elif cancelled:
            self._after_cancellation()
        else:
            self._watch()

    def _remind(self) -> None:
        """Log the state of the labels when they take long."""
        now = time.monotonic()
        if self._done:
            self._heard = now
        if now - self._heard < REMINDER:
            return
        self._heard = now
        begun = [f.began for f in self._flights.values() if f.look() is not None and f.began is not None]
        longest = f" (longest {(time.monotonic() - min(begun)) / 60:.0f} min)" if begun else ""
        bound = "no label_timeout" if self._timeout is None else f"label_timeout {self._timeout:g} s"
        waiting = len(self._waiting) + len(self._flights) - len(begun)
        self._log(f"Waiting for labels ({bound}): {len(begun)} running{longest}, {waiting} not started.")

    def _watch(self) -> None:
        """Give up labels that exceed the time limit, and those whose worker exited with no message from the executor."""
        idle = self._timeout is None and self._workers.reports_deaths
        if idle or time.monotonic() - self._watched < POLL:
            return
        self._watched = time.monotonic()
        for future, flight in list(self._flights.items()):
            worker = flight.look()
            if worker is None or flight.overrun:
                continue
            if not self._workers.reports_deaths and has_ended(worker) and not future.done():
                self._give_up(future, LabelFailure("WorkerDied", f"its process {worker.pid} is gone"))
            elif self._timeout is not None and time.monotonic() - (flight.began or 0) > self._timeout + GRACE:
                flight.overrun = True
                if not (worker.machine == machine() and self._workers.end(worker.pid)):
                    self._give_up(future, overrun(self._timeout))

    def _give_up(self, future: Future, failure: LabelFailure) -> None:
        """Do not wait for a label any more, unless its worker left it before it went."""
        flight = self._flights.pop(future)
        _cancel(future)
        flight.end_programs()
        self._settle(flight, failure)

    def _recover(self, extra: list[Flight] | None = None) -> None:
        """Recover from a broken pool: mark suspects, requeue the labels, rebuild the executor."""
        lost = [*self._flights.values(), *(extra or [])]
        self._flights.clear()
        begun = [flight for flight in lost if flight.look() is not None]
        self._count_false_starts(bool(begun))
        ended = [flight for flight in lost if flight.overrun]  # by us, so the others are innocent
        suspects = [] if ended else begun or lost
        died = LabelFailure("WorkerDied", "the worker process exited (killed, crashed, or out of memory)")
        for flight in reversed(lost):
            flight.end_programs()
            if flight in ended:
                self._settle(flight, overrun(self._timeout))
            elif suspects == [flight]:
                self._settle(flight, died)
            else:
                flight.request.suspect |= flight in suspects
                self._settle(flight, None)
        self._workers.rebuild()

    def _after_cancellation(self) -> None:
        """Request cancelled labels again: a scheduler that ends cancels all of them, which costs no retry."""
        wait(self._flights, timeout=POLL)
        cancelled = [future for future in self._flights if future.cancelled()]
        failure = None if len(cancelled) == len(self._flights) else LabelFailure("Cancelled", "the executor cancelled the label")
        for flight in [self._flights.pop(future) for future in cancelled]:
            flight.end_programs()
            self._settle(flight, failure)
        if failure is None:
            self._cancellations += 1
            if self._cancellations >= CANCELLATIONS:
                raise ExecutorError(
                    f"the executor cancelled all labels {CANCELLATIONS} times and finished none: its scheduler has ended, or the "
                    "connection is lost; finished labels are kept: start the scheduler again and rerun the script."
                )
            self._log("The executor cancelled all labels; they are requested again.")
            self._workers.renew()

    def _count_false_starts(self, begun: bool) -> None:
        self._false_starts = 0 if begun else self._false_starts + 1
        if self._false_starts >= FALSE_STARTS:
            raise ExecutorError(
                "the executor's workers exit before they begin: does its script guard what it starts with "
                "`if __name__ == '__main__':`, and does it run out of memory"
            )

    def _settle(self, flight: Flight, outcome: Label | LabelFailure | None) -> None:
        """Record the outcome of a label; None means no outcome, for a reason outside the label."""
        request = flight.request
        if not isinstance(outcome, Label):
            left = left_label(flight.directory, request.image, self._digest)
            outcome = left if isinstance(left, Label) else outcome
        if isinstance(outcome, Label):
            self._cancellations = 0
        if outcome is None:
            self._waiting.appendleft(request)
        elif isinstance(outcome, LabelFailure) and request.attempts < self._retries:
            request.attempts += 1
            request.suspect |= outcome.kind == "WorkerDied"
            self._on_retry(request.atom, outcome)
            self._waiting.append(request)
        else:
            self._done.append((request.atom, outcome))


def numbered(keys: Iterable[Key]) -> dict[int, Key]:
    """Return keys by distinct numbers of labels, which are short names of directories.

    Parameters
    ----------
    keys : iterable
        Each with a `repr` that is the same in each run.

    Returns
    -------
    dict of int to key
        The same for the same keys.
    """
    numbers: dict[int, Key] = {}
    for key in keys:
        number = zlib.crc32(repr(key).encode()) % LARGEST
        while number in numbers:
            number = (number + 1) % LARGEST
        numbers[number] = key
    return numbers


def _cancel(future: Future) -> None:
    with contextlib.suppress(Exception):  # some executors' futures cannot
        future.cancel()
