"""Outputs of VASP, Quantum ESPRESSO and CP2K as images: small files in the formats of these programs, with labels of EMT."""

from pathlib import Path

import numpy as np
import pytest
from ase.io import write
from ase.units import Bohr, Hartree, Rydberg
from small_runs import cells

from amp.nft.errors import InputError
from amp.nft.inputs.structures import read_images, read_training_images


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows(table, form="{:16.8f}"):
    """Return lines of numbers."""
    return "".join("".join(form.format(value) for value in row) + "\n" for row in np.asarray(table))


def outcar(images):
    """Return the lines of an OUTCAR that hold structures, energies and forces."""
    text = f" vasp.5.4.4.18Apr17\n POTCAR:    PAW_PBE Pt 05Jan2001\n   ions per type =  {len(images[0]):12d}\n"
    for image in images:
        energy = image.get_potential_energy()
        text += "        Iteration      1(   1)\n"
        cell = np.hstack([image.cell.array, np.linalg.inv(image.cell.array).T])
        text += "      direct lattice vectors                 reciprocal lattice vectors\n" + rows(cell, "{:13.9f}") + "\n"
        text += " POSITION                                       TOTAL-FORCE (eV/Angst)\n " + 83 * "-" + "\n"
        text += rows(np.hstack([image.positions, image.get_forces()])) + " " + 83 * "-" + "\n\n"
        text += f"  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  {51 * '-'}\n  free  energy   TOTEN  = {energy:18.8f} eV\n\n"
        text += f"  energy  without entropy= {energy:18.8f}  energy(sigma->0) = {energy:18.8f}\n\n"
    return text


def vasprun(images):
    """Return a vasprun.xml with structures, energies and forces."""

    def vectors(name, table):
        return f'<varray name="{name}">' + "".join("<v>" + " ".join(map(repr, map(float, row))) + "</v>" for row in table) + "</varray>"

    def structure(image, name=""):
        cell = f"<crystal>{vectors('basis', image.cell.array)}{vectors('rec_basis', np.linalg.inv(image.cell.array).T)}</crystal>"
        return f"<structure {name}>{cell}{vectors('positions', image.get_scaled_positions(wrap=False))}</structure>"

    first, initial, final = images[0], "name='initialpos'", "name='finalpos'"
    atoms = "".join(f"<rc><c>{symbol}</c><c>1</c></rc>" for symbol in first.symbols)
    kinds = f"<rc><c>{len(first)}</c><c>Pt</c><c>195.08</c><c>10.0</c><c>PAW_PBE Pt</c></rc>"
    text = (
        f'<modeling><atominfo><atoms>{len(first)}</atoms><types>1</types><array name="atoms"><set>{atoms}</set></array>'
        f'<array name="atomtypes"><set>{kinds}</set></array></atominfo>'
        f"<kpoints>{vectors('kpointlist', [[0, 0, 0]])}{vectors('weights', [[1]])}</kpoints>"
        f"{structure(first, initial)}"
    )
    for image in images:
        energy = "".join(
            f'<i name="{name}">{float(image.get_potential_energy())!r}</i>' for name in ("e_fr_energy", "e_wo_entrp", "e_0_energy")
        )
        step = f"<scstep><energy>{energy}</energy></scstep>"
        text += f"<calculation>{step}{structure(image)}{vectors('forces', image.get_forces())}<energy>{energy}</energy></calculation>"
    return f'<?xml version="1.0"?>{text}{structure(images[-1], final)}</modeling>'


def pwo(images):
    """Return an output of pw.x with structures, energies and forces."""
    first = images[0]
    text = f"     Program PWSCF v.6.0\n     lattice parameter (alat)  = {1 / Bohr:12.8f}  a.u.\n"
    text += f"     number of atoms/cell      = {len(first):12d}\n     number of atomic types    = {1:12d}\n"
    text += f"     celldm(1)= {1 / Bohr:14.10f}  celldm(2)=   0.000000  celldm(3)=   0.000000\n"
    text += "     crystal axes: (cart. coord. in units of alat)\n"
    text += "".join(f"               a({k + 1}) = ({v[0]:11.8f} {v[1]:11.8f} {v[2]:11.8f} )\n" for k, v in enumerate(first.cell.array))
    text += "\n   Cartesian axes\n\n     site n.     atom                  positions (alat units)\n"
    for k, (symbol, place) in enumerate(zip(first.symbols, first.positions, strict=True)):
        text += f"{k + 1:10d}           {symbol}  tau({k + 1:4d}) = ({place[0]:13.8f}{place[1]:13.8f}{place[2]:13.8f}  )\n"
    text += "\n"
    for number, image in enumerate(images):
        if number:
            text += "CELL_PARAMETERS (angstrom)\n" + rows(image.cell.array) + "\nATOMIC_POSITIONS (angstrom)\n"
            text += "".join(
                f"{s} {' '.join(f'{x:.10f}' for x in place)}\n" for s, place in zip(image.symbols, image.positions, strict=True)
            )
            text += "\n"
        text += f"!    total energy              = {image.get_potential_energy() / Rydberg:16.10f} Ry\n\n"
        text += "     Forces acting on atoms (cartesian axes, Ry/au):\n\n"
        for k, force in enumerate(image.get_forces() / (Rydberg / Bohr)):
            text += f"     atom {k + 1:4d} type  1   force = " + "".join(f"{x:16.10f}" for x in force) + "\n"
        text += "\n"
    return text


def agree(found, images, tolerance=1e-6):
    assert len(found) == len(images)
    for one, image in zip(found, images, strict=True):
        assert one.get_potential_energy() == pytest.approx(image.get_potential_energy(), abs=tolerance)
        np.testing.assert_allclose(one.get_forces(), image.get_forces(), atol=tolerance)
        np.testing.assert_allclose(one.positions - one.positions[0], image.positions - image.positions[0], atol=tolerance)
        np.testing.assert_allclose(one.cell, image.cell, atol=tolerance)


def same_atoms():
    """Return cells of four atoms."""
    return [image for image in cells() if len(image) == 4]


@pytest.mark.parametrize(
    ("name", "text"), [("OUTCAR", outcar), ("vasprun.xml", vasprun), ("pt.pwo", pwo), ("pw.out", pwo)], ids=["OUTCAR", "xml", "pwo", "out"]
)
def test_each_step_of_an_output_is_an_image(name, text):
    images = same_atoms()
    Path(name).write_text(text(images))
    agree(read_training_images(name), images)
    agree(read_training_images(f"{name}@0"), images[:1])
    agree(read_training_images(f"{name}@-1"), images[-1:])
    agree(read_training_images(f"{name}@:1"), images[:1])


def cp2k(images, name="md"):
    """Write places, forces and cells as CP2K does."""
    places, forces, cell = "", "", "#   Step   Time [fs]       Ax [Angstrom] ... Volume [Angstrom^3]\n"
    for number, image in enumerate(images):
        comment = f" i = {10 * number:8d}, time = {5.0 * number:12.3f}, E = {image.get_potential_energy() / Hartree:20.10f}\n"
        for table, scale in ((image.positions, 1.0), (image.get_forces(), Bohr / Hartree)):
            lines = "".join(f"{symbol:>3s}" + rows([row], "{:20.10f}") for symbol, row in zip(image.symbols, table * scale, strict=True))
            text = f"{len(image):8d}\n{comment}{lines}"
            places, forces = (places + text, forces) if table is image.positions else (places, forces + text)
        cell += f"{10 * number:8d}{5.0 * number:12.3f}" + rows([[*image.cell.array.ravel(), image.get_volume()]], "{:20.10f}")
    Path(f"{name}-pos-1.xyz").write_text(places)
    Path(f"{name}-frc-1.xyz").write_text(forces)
    Path(f"{name}-1.cell").write_text(cell)


def test_a_trajectory_of_cp2k_with_its_forces():
    images = same_atoms()
    cp2k(images)
    agree(read_training_images("md-pos-1.xyz"), images)
    agree(read_training_images("md-pos-1.xyz@-1"), images[-1:])
    agree(read_training_images("md-pos-1.xyz@::2"), images[::2])
    assert all(image.pbc.all() for image in read_images("md-pos-1.xyz"))
    with pytest.raises(InputError, match=r"'md-pos-1.xyz@7' has no structure at this index"):
        read_images("md-pos-1.xyz@7")


def test_the_cell_of_a_restart_file_serves_all_steps():
    images = same_atoms()[:1] * 2
    cp2k(images)
    Path("md-1.cell").unlink()
    with pytest.raises(InputError, match=r"images: md-pos-1.xyz: the cell is not known; put md-1.cell or md-1.restart of the same run"):
        read_images("md-pos-1.xyz")
    vectors = "".join(f"       {name} " + rows([vector], " {:.12f}") for name, vector in zip("ABC", images[0].cell.array, strict=True))
    atoms = "".join(f"       {s}" + rows([place], " {:.12f}") for s, place in zip(images[0].symbols, images[0].positions, strict=True))
    restart = " &FORCE_EVAL\n   &SUBSYS\n     &CELL\n{}{}     &END CELL\n     &COORD\n{}     &END COORD\n   &END SUBSYS\n &END FORCE_EVAL\n"
    Path("md-1.restart").write_text(restart.format(vectors, "", atoms))
    agree(read_images("md-pos-1.xyz"), images)
    Path("md-1.restart").write_text(restart.format(vectors, "       PERIODIC  NONE\n", atoms))
    assert not read_images("md-pos-1.xyz@0")[0].pbc.any()


def test_places_of_cp2k_without_forces_are_structures_without_labels():
    cp2k(same_atoms())
    Path("md-frc-1.xyz").unlink()
    assert len(read_images("md-pos-1.xyz")) == len(same_atoms())
    with pytest.raises(InputError, match="has no energy or no forces"):
        read_training_images("md-pos-1.xyz")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("i = ", "step = "), r"md-pos-1.xyz has no step i = ... in line 2"),
        (("E = ", "energy = "), r"md-pos-1.xyz has no energy E = ... in the comment of step 0"),
        (("i = ", "i = 9"), r"have no step in common: print both at the same steps"),
    ],
)
def test_files_that_are_not_of_cp2k(change, text):
    cp2k(same_atoms())
    places = Path("md-pos-1.xyz")
    places.write_text(places.read_text().replace(*change))
    with pytest.raises(InputError, match=text):
        read_images("md-pos-1.xyz")


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("a.extxyz@9", InputError, "'a.extxyz@9' has no structure at this index"),
        ("a.extxyz@first", InputError, "and after @ an index or a slice, such as 0, -1, :10 or ::5"),
        ("b.extxyz@0", FileNotFoundError, "there is no file 'b.extxyz@0'"),
        ("folder", InputError, "'folder' cannot be read (it is a directory); give a file"),
        ("a@b/c.extxyz", FileNotFoundError, "there is no file 'a@b/c.extxyz'"),
    ],
)
def test_a_wrong_file_or_index_is_named(name, error, text):
    write("a.extxyz", same_atoms())
    Path("folder").mkdir()
    with pytest.raises(error) as caught:
        read_images(name)
    assert text in str(caught.value)
