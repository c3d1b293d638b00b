"""No global aggregation: a 3x3 convolution in its place, the dilated fully convolutional baseline.

References
----------
Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015.
"""

from torch import nn

from gald.models.layers import conv_norm_act


def build(channels: int) -> nn.Sequential:
    """3x3 convolution, batch norm and ReLU, (N, C, H, W) to the same shape; it sees its neighbours and no further."""
    return conv_norm_act(channels, channels)
