"""Bootstrap samples as integer weights, and the choice of the trainer."""

import numpy as np
import pytest
from amp.stats.bootstrap import calc_text, train_line

from amp.nft.records import JobOptions, Purpose, random_stream
from amp.nft.training import choose_trainer, sample_weights

MEMBERS = 400  # enough for means; 4 standard errors are allowed
SIGMAS = 4
DRAWS = 4000


def test_first_sample_is_a_plain_bootstrap():
    weights_mi = sample_weights(seed=3, members=MEMBERS, n_images=12, added=[])
    assert weights_mi.shape == (MEMBERS, 12)
    assert (weights_mi.sum(axis=1) == 12).all()
    left_out = (weights_mi == 0).mean()
    expected = (1 - 1 / 12) ** 12
    assert abs(left_out - expected) < SIGMAS * np.sqrt(expected / weights_mi.size)


def test_accelerated_scheme_gives_new_images_their_share():
    weights_mi = sample_weights(3, MEMBERS, 12, [range(12, 38)])
    assert weights_mi.shape == (MEMBERS, 38)
    assert (weights_mi.sum(axis=1) == 38).all()
    share = weights_mi[:, 12:].sum() / weights_mi.sum()
    expected = 26 / 38
    assert abs(share - expected) < SIGMAS * np.sqrt(expected * (1 - expected) / weights_mi.sum())
    new = weights_mi[:, 12:].mean(axis=0)
    assert np.abs(new - expected * 38 / 26).max() < SIGMAS * np.sqrt(1.0 / MEMBERS)


def test_samples_follow_from_seed_iteration_and_member_alone():
    added = [[4, 5], [5, 6]]
    whole = sample_weights(1, 6, 4, added)
    np.testing.assert_array_equal(whole[:3], sample_weights(1, 3, 4, added))
    assert (whole != sample_weights(2, 6, 4, added)).any()
    earlier = sample_weights(1, 6, 4, added[:1])
    assert earlier.shape == (6, 6) and whole.shape == (6, 7)
    assert (whole.sum(axis=1) == earlier.sum(axis=1) + 2).all()


def test_an_image_chosen_again_gains_weight():
    once = sample_weights(1, MEMBERS, 4, [[4, 5], [6]])[:, 4].mean()
    twice = sample_weights(1, MEMBERS, 4, [[4, 5], [4, 6]])[:, 4].mean()
    assert twice > once


def test_nothing_added_changes_nothing():
    np.testing.assert_array_equal(sample_weights(1, 3, 4, [[4], []]), sample_weights(1, 3, 4, [[4]]))


def _numbers(seed, purpose, *indices):
    return np.random.default_rng(random_stream(seed, purpose, *indices)).uniform(size=DRAWS)


def test_streams_of_random_numbers_are_uncorrelated():
    """Samples and weights of one member, of other members, iterations and seeds: no pair of streams is correlated."""
    keys = [(seed, purpose, iteration, member) for seed in (0, 1) for purpose in Purpose for iteration in (0, 1) for member in range(3)]
    correlations = np.corrcoef([_numbers(*key) for key in keys])[np.triu_indices(len(keys), 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(DRAWS)  # 5 standard errors, for some 300 pairs
    np.testing.assert_array_equal(_numbers(*keys[0]), _numbers(*keys[0]))


def test_bootstrap_counts_do_not_follow_the_initial_weights():
    """The first uniform numbers of a member's weights say nothing about its sample."""
    counts = sample_weights(0, MEMBERS, 8, [])
    first = np.array([_numbers(0, Purpose.WEIGHTS, 0, member)[:8] for member in range(MEMBERS)])
    correlations = [np.corrcoef(counts[:, i], first[:, j])[0, 1] for i in range(8) for j in range(8)]
    assert np.abs(correlations).max() < SIGMAS / np.sqrt(MEMBERS)


@pytest.fixture
def choose(tmp_path):
    def choose(wanted="auto", log=print, **changes):
        settings = {
            "calc_text": calc_text,
            "headerlines": "",
            "train_line": train_line,
            "start_command": "python run.py",
            "directory": tmp_path,
        }
        return choose_trainer(wanted, JobOptions(**(settings | changes)), threads=1, log=log)

    return choose


@pytest.mark.filterwarnings("ignore:calc_text sets no force criterion")  # Amp's default calc_text
@pytest.mark.parametrize(
    ("wanted", "changes", "name", "why"),
    [
        ("auto", {}, "batched", "plain local"),
        ("auto", {"start_command": "python3 run.py &"}, "batched", "plain local"),
        ("auto", {"start_command": "sh run.py"}, "jobs", "requires jobs"),
        ("auto", {"train_line": "calc.train(images=trainfile, overwrite=True)"}, "jobs", "user's own"),
        ("auto", {"calc_text": calc_text.replace("gaussian", "zernike").replace("Gaussian", "Zernike")}, "jobs", "Zernike"),
        ("jobs", {}, "jobs", "requested"),
        ("batched", {"start_command": "sh run.py"}, "batched", "requested"),
    ],
)
def test_choice(choose, wanted, changes, name, why):
    choice = choose(wanted, **changes)
    assert choice.trainer.name == name
    assert why in choice.why
    assert choice.radius == (None if "Zernike" in why else 6.5)


def test_choices_that_cannot_be(choose):
    with pytest.raises(ValueError, match="trainer is 'fast': it must be one of"):
        choose("fast")
    zernike = calc_text.replace("gaussian", "zernike").replace("Gaussian", "Zernike")
    with pytest.raises(ValueError, match="trainer='batched' cannot train this calculator"):
        choose("batched", calc_text=zernike)
    with pytest.raises(ValueError, match="no-such-queue"):
        choose(start_command="no-such-queue run.py")
    with pytest.raises(ValueError, match="defines no `calc`"):
        choose(calc_text="x = 1")


def test_training_without_forces_is_said_aloud(choose):
    lines = []
    with pytest.warns(UserWarning, match="chunks, of which only a force is trained, will teach nothing"):
        choose(calc_text=calc_text, log=lines.append)  # Amp's default
    assert "force_rmse" in lines[0]
    lines.clear()
    choose(calc_text=calc_text + "\ncalc.model.lossfunction.parameters.convergence['force_rmse'] = 0.01", log=lines.append)
    assert not lines
