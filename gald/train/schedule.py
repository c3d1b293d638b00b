"""Learning rate as a function of the iteration."""


def learning_rate(iteration: int, *, base: float, power: float, max_iters: int, warmup_iters: int = 0) -> float:
    """Poly schedule, with a linear warm-up on top.

    Parameters
    ----------
    iteration : int
        Iteration about to be made, in [0, max_iters).
    base : float
        Learning rate that the schedule starts from.
    power : float
        Exponent of the decay, 0.9 in the literature.
    max_iters : int
        Iterations of the whole training; the rate would reach zero there.
    warmup_iters : int
        Iterations over which the rate rises linearly from base / warmup_iters.

    Returns
    -------
    float
        ``base (1 - iteration / max_iters)^power``, times ``(iteration + 1) / warmup_iters`` during the warm-up.

    References
    ----------
    Liu et al., ParseNet, 2015; Chen et al., DeepLab, 2017, section 4.1.

    Examples
    --------
    >>> learning_rate(0, base=0.01, power=0.9, max_iters=100)
    0.01
    >>> learning_rate(100, base=0.01, power=0.9, max_iters=100)
    0.0
    >>> learning_rate(0, base=0.01, power=1, max_iters=100, warmup_iters=10)
    0.001
    """
    decay = (1 - iteration / max_iters) ** power
    warmup = min(1.0, (iteration + 1) / warmup_iters) if warmup_iters else 1.0
    return float(base * decay * warmup)
