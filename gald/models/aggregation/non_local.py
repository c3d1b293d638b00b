"""Non-local block: embedded-Gaussian attention over all positions.

References
----------
Wang, Girshick, Gupta, He: Non-local Neural Networks, CVPR 2018, equations 1, 4 and 6.
"""

from torch import nn

from gald.models.aggregation._attention import attend, by_position
from gald.models.aggregation._layout import add_residual
from gald.models.layers import Feature
from gald.options import PositiveInt


class NonLocal(nn.Module):
    """z = x + BN(Wz softmax(theta(x)^T phi(x)) g(x)), in memory linear in the positions.

    The paper's softmax has no 1/sqrt(d), so there is no scale unless asked for. The last norm starts at zero, the block
    thus as the identity (section 4.1 of the paper).
    """

    def __init__(self, channels: int, inner: int, scaled: bool, subsample: bool, zero_start: bool) -> None:
        super().__init__()
        self.scale = inner**-0.5 if scaled else 1.0
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, inner, 1)
        self.pool = nn.MaxPool2d(2, ceil_mode=True) if subsample else nn.Identity()
        norm = nn.BatchNorm2d(channels)
        if zero_start:
            nn.init.zeros_(norm.weight)
        self.out = nn.Sequential(nn.Conv2d(inner, channels, 1), norm)

    def forward(self, feature: Feature) -> Feature:
        """Aggregate (N, C, H, W) to the same shape."""
        return add_residual(self.out(self._attended(feature)), feature)

    def _attended(self, feature: Feature) -> Feature:
        """Values of all positions as each one weighs them: (N, inner, H, W)."""
        query = by_position(self.query(feature).flatten(2))
        key, value = (by_position(self.pool(part(feature)).flatten(2)) for part in (self.key, self.value))
        attended = attend(query, key, value, scale=self.scale)
        return attended.reshape(*attended.shape[:2], *feature.shape[-2:])


def build(
    channels: int, *, reduction: PositiveInt = 2, scaled: bool = False, subsample: bool = False, zero_start: bool = True
) -> NonLocal:
    """Non-local block, (N, C, H, W) to the same shape.

    Parameters
    ----------
    channels : int
        Channels of the feature.
    reduction : int
        Queries, keys and values have channels // reduction channels; the paper halves.
    scaled : bool
        Divide the similarities by the root of their width; the paper does not.
    subsample : bool
        Take the keys and values at half the resolution by 2x2 max pooling, a quarter of the cost; the paper's trick of
        section 3.3, which still lets every position see all of the map.
    zero_start : bool
        Let the block start as the identity, as the paper does.
    """
    return NonLocal(channels, max(1, channels // reduction), scaled, subsample, zero_start)
