"""Curves of metrics.csv: what is drawn is what the tables have."""

from pathlib import Path

import numpy as np
import pytest

from amp.nft.errors import InputError
from amp.nft.report.metrics_curve import CURVES, draw_metrics, read_metrics

TABLE = "iteration,labels,delta_max,delta_mean,force_rmse\n0,0,1.5,0.5,0.01\n1,4,0.7,,0.02\n"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_curve_of_one_run():
    Path("metrics.csv").write_text(TABLE)
    (axes,) = draw_metrics(["metrics.csv"]).axes
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    assert set(lines) == {label for label, _ in CURVES.values()}
    np.testing.assert_array_equal(lines["largest uncertainty"], [[0, 1.5], [4, 0.7]])
    np.testing.assert_array_equal(lines["mean uncertainty"], [[0, 0.5]])  # the other one is not known


def test_runs_have_the_names_of_their_directories():
    for name in ("a/al-training", "b/al-training"):
        Path(name).mkdir(parents=True)
        Path(name, "metrics.csv").write_text(TABLE)
    (axes,) = draw_metrics([f"{name}/al-training/metrics.csv" for name in "ab"]).axes
    labels = [line.get_label() for line in axes.lines]
    assert labels[0] == str(Path("a/al-training")) + ": largest uncertainty"
    assert len(set(labels)) == len(labels) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column labels"),
        ("iteration,labels\n0,0\n", "has no column delta_max, delta_mean, force_rmse"),
        (TABLE.splitlines()[0], "has no finished iteration yet"),
        (TABLE + "2,x,1,1,1\n", "is not a table of metrics"),
    ],
)
def test_other_files_are_refused(text, message):
    Path("metrics.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_metrics("metrics.csv")


def test_a_file_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        read_metrics("none.csv")
