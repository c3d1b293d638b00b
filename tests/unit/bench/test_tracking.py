from gald.bench.tracking import _row


def test_each_round_is_compared_with_itself():
    """A round that was slow as a whole says nothing about the follower."""
    assert _row("up", [0.0101, 0.0202, 0.0404], [0.01, 0.02, 0.04]) == (
        "| up | 20.2 | 1.010 | 1.010 to 1.010 | 1.02 | yes |"
    )
    assert _row("up", [0.0103], [0.01]).endswith("| NO |")
