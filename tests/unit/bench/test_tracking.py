import pytest

from gald.bench.tracking import _paces, _prepare


def test_a_training_is_compared_with_itself_while_its_follower_stands_still():
    """Ten iterations take 1 s while the follower stands still (from 2.5 to 4.5 s) and 1.2 s while it does not."""
    times = [0.0, 1.2, 2.4, 3.4, 4.4, 5.6]
    history = [(10 * number, when) for number, when in enumerate(times)]
    taken, without = _paces([history], [(2.3, 4.5)])
    assert taken == pytest.approx(5.6 / 50)
    assert without == pytest.approx(0.1)


def test_only_the_time_in_which_all_train_counts():
    """The first training begins alone and slowly ends alone and fast."""
    late = [(10, 2.0), (20, 4.0), (30, 6.0)]
    early = [(10, 0.0), (20, 2.0), (30, 4.0), (40, 6.0), (50, 6.1)]
    assert _paces([late, early], []) == (pytest.approx(0.2), pytest.approx(0.2))


def test_an_interval_that_is_partly_in_a_stretch_says_nothing_of_it():
    history = [(10, 0.0), (20, 1.0), (30, 3.0), (40, 4.0)]
    assert _paces([history], [(0.0, 2.0), (3.0, 4.0)])[1] == pytest.approx(0.1)


def test_its_training_is_one_that_the_params_of_today_allow(tmp_path):
    params = _prepare(tmp_path / "data")
    assert params.evaluate.protocol.name == "whole"
    assert params.train.crop_size == (96, 128)
