"""The notebooks of examples/ run from the first cell to the last, in an empty directory."""

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples" / "notebooks").glob("*.ipynb"))
OF_XTB = {"water_drop.ipynb"}


def test_there_are_two():
    assert len(NOTEBOOKS) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the client and the kernel's start
@pytest.mark.parametrize("path", [pytest.param(path, marks=pytest.mark.parents if path.name in OF_XTB else ()) for path in NOTEBOOKS],
                         ids=lambda path: path.stem)  # fmt: skip
def test_the_notebook_runs(path, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    if path.name in OF_XTB:
        pytest.importorskip("tblite")
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs before a commit"
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "best.al.ensemble").exists()
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})]
    assert pictures
