import pytest

from gald.train.schedule import learning_rate


def test_poly_at_both_ends_and_in_between() -> None:
    at = {i: learning_rate(i, base=0.01, power=0.9, max_iters=1000) for i in (0, 500, 999, 1000)}
    assert at[0] == 0.01
    assert at[500] == pytest.approx(0.01 * 0.5**0.9)
    assert at[999] == pytest.approx(0.01 * 0.001**0.9)
    assert at[1000] == 0


def test_warmup_rises_linearly_and_then_leaves_the_schedule_alone() -> None:
    plain = [learning_rate(i, base=0.1, power=1, max_iters=100) for i in range(20)]
    warm = [learning_rate(i, base=0.1, power=1, max_iters=100, warmup_iters=10) for i in range(20)]
    assert warm[:10] == pytest.approx([rate * (i + 1) / 10 for i, rate in enumerate(plain[:10])])
    assert warm[9:] == plain[9:]
