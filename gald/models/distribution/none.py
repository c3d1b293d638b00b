"""No local distribution: the aggregated feature goes on as it is. A baseline is a network with this."""

from torch import nn

from gald.models.layers import Feature


class NoDistribution(nn.Module):
    """Return the aggregated feature."""

    def forward(self, local: Feature, aggregated: Feature) -> Feature:
        """Distribute `aggregated` by itself and `local`, both (N, C, H, W), to the same shape."""
        del local
        return aggregated


def build(channels: int) -> NoDistribution:
    """Pass the aggregated feature on; it has no parameters and no options.

    Parameters
    ----------
    channels : int
        Channels of both features; nothing here depends on them.
    """
    del channels
    return NoDistribution()
