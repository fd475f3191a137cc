"""Decks that notice halts and continue: the commands that are added, and decks that are refused."""

from pathlib import Path

import pytest

from amp.nft.errors import InputError
from amp.nft.interfaces.commands import commands, words
from amp.nft.interfaces.deck import split_deck
from amp.nft.interfaces.dumps import cut_after
from amp.nft.interfaces.halts import continuing, noticing
from amp.nft.interfaces.includes import inlined
from amp.nft.records import Checkpoint

HEAD = "units metal\nread_data target.data\nreplicate 2 1 1\nfix nft all external pf/callback 1 1\n"
HALT = "variable dmax equal f_nft[1]\nfix halt all halt 10 v_dmax > ${limit} error soft\n"
REST = HALT + "velocity all create 300 1\nrun 100 pre no start 5 every 10 'print x'\n"


def test_words_and_commands():
    assert words('run 5 every 1 "print a # b" # comment "') == ["run", "5", "every", "1", '"print a # b"']
    assert words("# run 5") == []
    assert list(commands('a &\nb\nif x then """\nrun 1\n"""\nc')) == ["a &\nb\n", 'if x then """\nrun 1\n"""\n', "c"]


def test_a_deck_without_a_halt_for_the_uncertainty_stays_as_it_is():
    for rest in ("run 5\n", "variable s equal step\nfix halt all halt 1 v_s > 3 error soft\nrun 5\n", REST.replace("soft", "hard")):
        deck = split_deck(HEAD + rest)
        assert noticing(deck) is deck
    for rest in ("run 5\n", "variable s equal step\nfix halt all halt 1 v_s > 3 error soft\nrun 5\n"):
        with pytest.raises(InputError, match=r"the deck has no `fix halt` whose variable contains f_nft\[1\]"):
            continuing(split_deck(HEAD + rest), "place")


def test_a_run_after_a_halt_is_noticed_also_by_a_variable_of_a_variable():
    rest = HALT.replace("v_dmax", "v_twice") + "variable twice equal 2*v_dmax\nrun 5\nunfix halt\nrun 5\n"
    found = noticing(split_deck(HEAD + rest)).rest
    assert "variable nft_limit_1 string ${limit}\n" in found
    assert "unfix halt\nvariable nft_limit_1 string 1e300\n" in found
    assert found.count('(${twice} > ${nft_limit_1}))" then "variable nft_halted string') == 2


def test_the_rest_of_a_run_keeps_its_ramp_and_its_commands():
    found = continuing(split_deck(HEAD + REST), "place")
    assert found.head == HEAD
    assert "\nrun ${nft_last} upto start 5 stop ${nft_last} every 10 'print x'\n" in found.rest
    assert (
        "run ${nft_last} upto start ${nft_first} stop 9 post no\n"
        in continuing(split_deck(HEAD + HALT + "run 9 upto stop 9 post no\n"), "place").rest
    )
    assert "read_restart" not in found.rest and "nft_skip" not in found.rest
    assert "variable nft_restart string place/halt-${nft_run}-$(step:%.0f).restart\nwrite_restart ${nft_restart}\n" in found.rest


def test_a_resumed_deck_reads_the_restart_file_and_skips_what_changes_atoms():
    deck = split_deck(HEAD + "dump d all custom 5 a.dump id type x y z d_delta\n" + REST)
    found = continuing(deck, "place", Checkpoint("place/halt-7.restart", 1, 0, 100))
    assert found.head == "units metal\nread_restart place/halt-7.restart\nfix nft all external pf/callback 1 1\n"
    assert "dump_modify d append yes\nvariable nft_dump_1 string a.dump\nvariable nft_dump string a.dump\n" in found.rest
    skipped = 'if "${nft_run} < ${nft_resume}" then "jump SELF nft_skip_1"\nvelocity all create 300 1\nlabel nft_skip_1\n'
    assert skipped in found.rest


def test_dumps_stay_whole_whatever_the_deck_changes():
    dumps = "dump d all custom 5 a.dump id type x y z d_delta\ndump_modify d sort id flush no\ndump e all xyz 5 b.${i}.xyz\n"
    dumps += "dump f all custom 5 f.*.dump id x\ndump g all dcd 5 g.dcd\ndump_modify d append no first yes\n"
    deck = split_deck(HEAD + dumps + REST)
    first = continuing(deck, "place")
    assert first.dumps == (("nft_dump_1", "custom"), ("nft_dump_2", "xyz"))
    assert "sort id flush no\ndump_modify d flush yes\n" in first.rest and "append yes" not in first.rest
    found = continuing(deck, "place", Checkpoint("place/halt-1-7.restart", 1, 0, 100))
    assert "variable nft_dump_2 string b.${i}.xyz\n" in found.rest
    assert "append no first yes\ndump_modify d append yes\n" in found.rest


@pytest.mark.parametrize(("begin", "sides"), [("a", "ba"), ("b", "ab"), ("", "ab")])
def test_the_restart_file_of_a_resumed_run_is_not_the_first_that_is_written_again(begin, sides):
    """A kill during this writing leaves the one from which the run began."""
    name = f"place/run-1-0-100-{begin}.restart" if begin else "place/halt-1-7.restart"
    found = continuing(split_deck(HEAD + REST), "place", Checkpoint(name, 1, 0, 100), every=10)
    names = [f"place/run-${{nft_run}}-${{nft_first}}-${{nft_last}}-{side}.restart" for side in sides]
    assert f"restart 10 {' '.join(names)}\n" in found.rest


@pytest.mark.parametrize(
    "rest",
    [
        REST.replace("error soft", "error hard"), REST.replace("error soft", ""), REST.replace(">", "!="), REST + "clear\n",
        REST + 'if "1 < 2" then "run 10"\n', REST + "jump other.lammps\n", REST + 'if "1 < 2" then "print a" else "jump other.lammps x"\n',
        REST + "include loop.lammps\n", REST + "if '1 < 2' then 'include loop.lammps'\n",
    ],
)  # fmt: skip
def test_decks_that_cannot_continue_are_refused(rest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("loop.lammps").write_text("label a\nrun 5\njump SELF a\n")
    with pytest.raises(InputError, match=r"the deck has `.*: (--relearn needs `fix halt|with --relearn (write|jump to a label))"):
        continuing(split_deck(inlined(HEAD + rest)), "place")


def test_included_files_are_in_their_places_and_their_runs_are_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("outer").write_text(f"{HALT}include 'in ner'  # twice\ninclude none\ninclude ${{name}}")
    Path("in ner").write_text("run 5")
    Path("later").write_text("stale\n")
    Path("binary").write_bytes(b"\xff\xfe run 5\n")
    text = inlined(
        HEAD + 'include outer\nprint "run 7" file later\ninclude later\ninclude binary\nif "1 < 2" then "jump SELF a"\nlabel a\n'
    )
    inner = f"{HALT}run 5\ninclude none\ninclude ${{name}}\n"
    rest = 'print "run 7" file later\ninclude later\ninclude binary\nif "1 < 2" then "jump SELF a"\nlabel a\n'
    assert text == HEAD + inner + rest
    assert continuing(split_deck(text), "place").rest.count("variable nft_run equal $(v_nft_run+1)") == 1
    Path("in ner").write_text("include outer\n")
    with pytest.raises(InputError, match="the deck includes files that include each other, more than 20 deep"):
        inlined("include outer\n")


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        (["0", "50", "100", "150"], 3), (["0", "50", "50", "100"], 4), (["0", "50", "100", ""], 3), (["150", "200"], 0), ([], 0),
        (["0", "50", "100", "150", "0", "50", "100", "150", "200"], 7), (["0", "150", "200", "0", "50"], 5),
    ],
)  # fmt: skip
@pytest.mark.parametrize("begin", [0, 7])
def test_frames_after_the_step_of_a_restart_file_are_cut_and_none_before_a_reset_of_the_step(steps, kept, begin, tmp_path):
    path, first = tmp_path / "a.dump", "x" * begin
    frames = [f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n0\n" if step else "ITEM: TIMESTEP\n" for step in steps]
    path.write_text(first + "".join(frames))
    cut_after(path, 100, begin)
    assert path.read_text() == first + "".join(frames[:kept])


STYLES = {
    "custom": "ITEM: TIMESTEP\n{0}\nITEM: NUMBER OF ATOMS\n1\nITEM: ATOMS id\n1 \n",
    "atom": "ITEM: TIME\n0.5\nITEM: TIMESTEP\n{0}\nITEM: NUMBER OF ATOMS\n1\nITEM: ATOMS id\n1 \n",
    "xyz": "1\n Atoms. Timestep: {0}\n1 0.5 0.5 0.5\n",
    "yaml": "---\ncreator: LAMMPS\ntimestep: {0}\nnatoms: 1\nkeywords: [ id,  ]\ndata:\n  - [ 1, ]\n...\n",
}


@pytest.mark.parametrize("style", STYLES)
def test_a_dump_that_a_kill_has_cut_anywhere_is_whole_to_the_step_of_the_restart_file(style, tmp_path):
    path = tmp_path / "a.dump"
    kept, later = ("".join(STYLES[style].format(step) for step in steps) for steps in ((0, 50, 1000), (1050, 1100)))
    for end in range(len(later) + 1):
        path.write_text(kept + later[:end])
        cut_after(path, 1000, 0, style)
        assert path.read_text() == kept, later[:end]
    reset = "".join(STYLES[style].format(step) for step in (0, 50))
    for end in range(len(later) + 1):
        path.write_text(kept + later + reset + later[:end])
        cut_after(path, 1000, 0, style)
        assert path.read_text() == kept + later + reset, later[:end]
