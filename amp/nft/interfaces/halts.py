"""Rewrite a deck so that runs which ``fix halt`` stops for an uncertainty are noticed, and can continue to their last step.

Each ``run`` gets commands of LAMMPS before and after it; variables whose names begin with ``nft_`` hold their results.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from amp.nft.errors import InputError
from amp.nft.interfaces.commands import commands, words
from amp.nft.interfaces.dumps import APPENDED, is_one_text, is_readable
from amp.nft.interfaces.includes import refuse_hidden_runs
from amp.nft.records import RUN_RESTART, Checkpoint

NEVER = "1e300"  # limit of a fix halt that is not defined yet
RESTART = "halt-{run}-{step}.restart"  # a deck can reset the step
EXAMPLE = "fix halt all halt 10 v_dmax > 0.7 error soft"
_BOX = ("read_data", "read_restart", "create_box")
_CHANGES = (
    "velocity", "displace_atoms", "minimize", "set", "create_atoms", "create_bonds", "delete_atoms", "delete_bonds", "replicate",
    "change_box", "reset_timestep", "reset_atoms", "read_dump", "write_data", "write_dump", "write_restart", "molecule",
)  # fmt: skip


@dataclass(frozen=True)
class Deck:
    """An input deck in two parts: up to and with its ``fix external``, and the rest; and the ID of the fix.

    `dumps` are the variables that hold the paths of its text dumps, with the styles of these.
    """

    head: str
    rest: str
    fix: str
    dumps: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Halt:
    """A ``fix halt`` on an uncertainty; `number` is part of its variable's name."""

    number: int
    fix: str
    variable: str
    relation: str

    @property
    def limit(self) -> str:
        return f"nft_limit_{self.number}"

    @property
    def condition(self) -> str:
        return f"(${{{self.variable}}} {self.relation} ${{{self.limit}}})"


def noticing(deck: Deck) -> Deck:
    """Return a deck that sets ``nft_halted`` to the step at which an uncertainty has stopped a run.

    Parameters
    ----------
    deck : Deck

    Returns
    -------
    Deck
        The same one if no ``fix halt`` depends on the uncertainty.
    """
    writer = _Writer(deck)
    return writer.written() if writer.has_halts else deck


def continuing(deck: Deck, directory: str, resumed: Checkpoint | None = None, every: int = 0) -> Deck:
    """Return a deck whose runs continue to their last step after each halt.

    At a halt it writes a restart file, adds 1 to ``nft_halts``, and runs on; the callback of ``fix external`` sees this at the first
    step, which it has seen before. Where ``nft_stop`` is 1 after a run, no run continues.

    Parameters
    ----------
    deck : Deck
    directory : str
        Of restart files.
    resumed : Checkpoint, optional
        Halt at which the dynamics begins: its restart file replaces the atoms of the deck, and commands before its run that would change
        the atoms are skipped.
    every : int
        Steps between restart files that each run writes, two of them in turn; 0: none. A deck that has a ``restart`` command writes none.

    Returns
    -------
    Deck

    Raises
    ------
    InputError
        If there is no ``fix halt`` for the uncertainty, or a command with which a run cannot continue.
    """
    writer = _Writer(deck, directory, resumed, every)
    if not writer.has_halts:
        raise InputError(
            f"the deck has no `fix halt` whose variable contains f_{deck.fix}[1]: add `variable dmax equal f_{deck.fix}[1]` and "
            f"`{EXAMPLE}`, or leave out --relearn."
        )
    return writer.written()


class _Writer:
    def __init__(self, deck: Deck, directory: str | None = None, resumed: Checkpoint | None = None, every: int = 0) -> None:
        self._deck, self._directory, self._resumed = deck, directory, resumed
        has_own = any(words(one)[:1] == ["restart"] for one in commands(deck.head + deck.rest))
        self._every = 0 if has_own else every
        begins_with_a = resumed is not None and resumed.restart.endswith("-a.restart")
        self._sides = "ba" if begins_with_a else "ab"  # the file that the run begins from is not the first that is written
        self._variables = _uncertain_variables(deck)
        self._halts: dict[str, _Halt] = {}
        self._halt_count = self._runs = self._skips = 0
        self._dumps: list[tuple[str, str]] = []
        self._timer = "timer timeout off"
        self.has_halts = any(self._halt_of(words(one)) is not None for one in commands(deck.head + deck.rest))

    def written(self) -> Deck:
        parts = ["".join(self._rewritten(one, head) for one in commands(text)) for head, text in self._parts()]
        return replace(self._deck, head=parts[0], rest=parts[1], dumps=tuple(self._dumps))

    def _parts(self) -> tuple[tuple[bool, str], tuple[bool, str]]:
        return (True, self._deck.head), (False, self._deck.rest)

    def _rewritten(self, command: str, head: bool) -> str:
        found = words(command)
        name, text = found[0] if found else "", command if command.endswith("\n") else command + "\n"
        if self._directory is not None:
            refuse_hidden_runs(command, found)
        if name == "timer" and "timeout" in found:
            self._timer = command.strip()
        if (halt := self._halt_of(found)) is not None:
            self._halts[halt.fix] = halt
            self._halt_count += 1
            return f"{text}variable {halt.limit} string {found[7]}\n"
        if name == "unfix" and len(found) > 1 and found[1] in self._halts:
            return f"{text}variable {self._halts[found[1]].limit} string {NEVER}\n"
        if name == "run" and len(found) > 1 and not head:
            return self._run(text, found)
        if name == "dump" and self._directory is not None and len(found) > 5:
            text += self._dump(found)
        if name == "dump_modify" and self._directory is not None and len(found) > 2:
            text += self._whole(found)
        return self._at_resumption(text, name, head)

    def _halt_of(self, found: list[str]) -> _Halt | None:
        """Return the halt that a command defines, if it depends on the uncertainty and does not end LAMMPS."""
        if len(found) < 8 or found[0] != "fix" or found[3] != "halt" or found[5].removeprefix("v_") not in self._variables:
            return None
        kind = found[found.index("error", 8) + 1] if "error" in found[8:-1] else None
        if self._directory is None:
            return None if kind in ("hard", "continue") or found[6] not in (">", ">=") else self._new_halt(found)
        if kind != "soft" or found[6] not in (">", ">="):
            raise InputError(f"the deck has `{' '.join(found)}`: --relearn needs `{EXAMPLE}`, with `>` and `error soft`.")
        return self._new_halt(found)

    def _new_halt(self, found: list[str]) -> _Halt:
        return _Halt(self._halt_count + 1, found[1], found[5].removeprefix("v_"), found[6])

    def _run(self, text: str, found: list[str]) -> str:
        """Return a run with the commands that notice its halts, and continue it."""
        self._runs += 1
        upto = "upto" in found[2:]
        begin = [
            f"variable nft_steps equal {found[1]}",
            "variable nft_first equal $(step:%.0f)",
            f"variable nft_last equal $({'' if upto else 'step+'}v_nft_steps:%.0f)",
        ]
        unsure = " || ".join(halt.condition for halt in self._halts.values())
        if not unsure:
            lines = [text] if self._directory is None else self._only_counted(begin, text, found)
        elif self._directory is None:
            lines = [*begin, text, f'if "($(step:%.0f) < ${{nft_last}}) && ({unsure})" then "variable nft_halted string $(step:%.0f)"']
        else:
            lines = self._continued(begin, text, found, unsure)
        return "".join(line if line.endswith("\n") else line + "\n" for line in lines)

    def _only_counted(self, begin: list[str], text: str, found: list[str]) -> list[str]:
        """Return the lines of a run before any ``fix halt``."""
        number = self._runs
        return [
            *self._begun(number, begin), text, f"jump SELF nft_ended_{number}", f"label nft_go_on_{number}", _rest_of_run(found),
            f"label nft_ended_{number}", *self._without_restart(), f"label nft_done_{number}",
        ]  # fmt: skip

    def _begun(self, number: int, begin: list[str]) -> list[str]:
        """Return lines that count runs, skip those that were finished before the dynamics was resumed, and begin the others."""
        over, restarts = f'then "jump SELF nft_done_{number}"', list[str]()
        if self._every:
            name = RUN_RESTART.format(run="${nft_run}", first="${nft_first}", last="${nft_last}", side="{side}")
            restarts = [f"restart {self._every} " + " ".join(f"{self._directory}/{name.replace('{side}', side)}" for side in self._sides)]
        return [
            "variable nft_run equal $(v_nft_run+1)",
            f'if "${{nft_run}} < ${{nft_resume}}" {over}',
            *begin,
            'if "${nft_run} == ${nft_resume}" then "variable nft_first equal ${nft_first_before}" '
            '"variable nft_last equal ${nft_last_before}"',
            *restarts,
            f'if "${{nft_run}} == ${{nft_resume}}" then "jump SELF nft_go_on_{number}"',
        ]

    def _without_restart(self) -> list[str]:
        return ["restart 0"] if self._every else []

    def _continued(self, begin: list[str], text: str, found: list[str], unsure: str) -> list[str]:
        number, over = self._runs, f'then "jump SELF nft_ended_{self._runs}"'
        restart = f"{self._directory}/{RESTART.format(run='${nft_run}', step='$(step:%.0f)')}"
        limits = [f'if "{halt.condition}" then "variable nft_limit string ${{{halt.limit}}}"' for halt in self._halts.values()]
        return [
            *self._begun(number, begin),
            text,
            f"label nft_look_{number}",
            f'if "${{nft_stop}} == 1" {over}',
            f'if "!({unsure})" {over}',
            self._timer,
            f'if "$(step:%.0f) >= ${{nft_last}}" {over}',
            *limits,
            f"variable nft_restart string {restart}",
            "write_restart ${nft_restart}",
            "variable nft_halts equal $(v_nft_halts+1)",
            f"label nft_go_on_{number}",
            _rest_of_run(found),
            f"jump SELF nft_look_{number}",
            f"label nft_ended_{number}",
            *self._without_restart(),
            f"label nft_done_{number}",
        ]

    def _dump(self, found: list[str]) -> str:
        """Return commands after the definition of a dump."""
        text = ""
        if self._resumed is not None and found[3] in APPENDED:
            text += f"dump_modify {found[1]} append yes\n"
        if is_one_text(found[3], found[5]):
            self._dumps.append((f"nft_dump_{len(self._dumps) + 1}", found[3]))
            text += f"variable {self._dumps[-1][0]} string {found[5]}\n"
        if is_readable(found):
            text += f"variable nft_dump string {found[5]}\n"
        return text

    def _whole(self, found: list[str]) -> str:
        """Return a command by which a dump that the deck has changed still holds each frame when a restart file is written."""
        needed = {"flush": True, "append": self._resumed is not None}
        changed = [f"{name} yes" for name, is_needed in needed.items() if is_needed and name in found[2:]]
        return f"dump_modify {found[1]} {' '.join(changed)}\n" if changed else ""

    def _at_resumption(self, text: str, name: str, head: bool) -> str:
        """Return a command, or what replaces it where the dynamics is resumed."""
        if self._resumed is None or name not in (*_BOX, *_CHANGES, "run"):
            return text
        if head:
            return f"read_restart {self._resumed.restart}\n" if name in _BOX else ""
        self._skips += 1
        skip = f'if "${{nft_run}} < ${{nft_resume}}" then "jump SELF nft_skip_{self._skips}"\n'
        return f"{skip}{text}label nft_skip_{self._skips}\n"


def _rest_of_run(found: list[str]) -> str:
    """Return the command for the rest of a run; ramps have the same start and stop."""
    others, given = [], {"start": "${nft_first}", "stop": "${nft_last}"}
    place = 2
    while place < len(found):
        word = found[place]
        if word == "every":
            others += found[place:]
            break
        pair = found[place : place + 2]
        if word in given:
            given[word] = pair[-1]
        elif word not in ("upto", "pre"):
            others += pair
        place += 1 if word == "upto" else 2
    return " ".join(["run ${nft_last} upto", *(f"{name} {value}" for name, value in given.items()), *others])


def _uncertain_variables(deck: Deck) -> set[str]:
    """Return the names of variables that depend on the vector of the fix."""
    formulas = {
        found[1]: " ".join(found[3:])
        for found in map(words, commands(deck.head + deck.rest))
        if len(found) > 3 and found[0] == "variable" and found[2] == "equal"
    }
    known: set[str] = set()
    while more := {
        name for name, formula in formulas.items()
        if name not in known and (f"f_{deck.fix}[" in formula or any(re.search(rf"v_{one}\b|\{{{one}\}}", formula) for one in known))
    }:  # fmt: skip
        known |= more
    return known
