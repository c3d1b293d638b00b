"""Mask distribution, aggregations and the block: numbers, sizes and refusals."""

import pytest
import torch
from torch import nn

from gald.errors import ModelError, ParamsError
from gald.models.aggregation import cgnl, non_local, psp
from gald.models.block import GlobalThenLocal
from gald.models.distribution import mask
from gald.models.layers import resize


@pytest.mark.parametrize(("reductions", "least"), [(1, 3), (2, 7), (3, 15)])
def test_mask_names_the_smallest_size_that_works(reductions, least):
    module = mask.build(4, reductions=reductions).eval()
    with pytest.raises(ModelError, match=f"{reductions} reductions, which need {least}x{least}"):
        module(torch.zeros(1, 4, least - 1, 40), torch.zeros(1, 4, least - 1, 40))
    feature = torch.zeros(1, 4, least, least)
    with pytest.warns(UserWarning, match="mask of 1x1"):
        assert module(feature, feature).shape == feature.shape


@pytest.mark.parametrize(("reductions", "side"), [(1, 9), (2, 19), (3, 39)])
def test_mask_of_four_positions_a_side_does_not_warn(reductions, side):
    feature = torch.randn(1, 4, side, side)
    mask.build(4, reductions=reductions).eval()(feature, feature)
    with pytest.warns(UserWarning, match="hardly local"):
        mask.build(4, reductions=reductions).eval()(feature[..., 2:, 2:], feature[..., 2:, 2:])


@pytest.mark.parametrize(("residual", "factor_x", "factor_g"), [("none", 0, 1.5), ("g", 0, 2.5), ("x", 1, 1.5)])
def test_mask_residuals_by_hand(residual, factor_x, factor_g):
    module = mask.build(4, reductions=1, residual=residual).eval()
    nn.init.zeros_(module.reduce[0][0].weight)
    nn.init.zeros_(module.reduce[0][0].bias)  # the mask is then sigmoid(0) = 1/2 everywhere
    x, g = torch.randn(1, 4, 9, 9), torch.randn(1, 4, 9, 9)
    torch.testing.assert_close(module(x, g), factor_x * x + factor_g * g)


def test_non_local_equals_the_textbook():
    module = non_local.build(8, zero_start=False).eval()
    feature = torch.randn(2, 8, 5, 7)
    query, key, value = (project(feature).flatten(2) for project in (module.query, module.key, module.value))
    attention = (query.transpose(1, 2) @ key).softmax(-1)
    expected = feature + module.out((value @ attention.transpose(1, 2)).reshape(2, 4, 5, 7))
    torch.testing.assert_close(module(feature), expected)


def test_non_local_scale_is_an_option_and_not_the_default():
    assert non_local.build(8).scale == 1
    assert non_local.build(8, scaled=True).scale == 0.5


def test_non_local_starts_as_the_identity():
    feature = torch.randn(2, 8, 5, 7)
    torch.testing.assert_close(non_local.build(8)(feature), feature)


def test_subsampled_non_local_equals_the_textbook_with_pooled_keys():
    module = non_local.build(8, subsample=True, zero_start=False).eval()
    feature = torch.randn(1, 8, 5, 6)
    pooled = [
        nn.functional.max_pool2d(part(feature), 2, ceil_mode=True).flatten(2) for part in (module.key, module.value)
    ]
    attention = (module.query(feature).flatten(2).transpose(1, 2) @ pooled[0]).softmax(-1)
    assert attention.shape == (1, 30, 9)
    expected = feature + module.out((pooled[1] @ attention.transpose(1, 2)).reshape(1, 4, 5, 6))
    torch.testing.assert_close(module(feature), expected)


def test_cgnl_equals_attention_between_all_channels_of_all_positions():
    module = cgnl.build(8, groups=2).double().eval()
    feature = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    groups = []
    for t, p, g in zip(*(each(feature).chunk(2, 1) for each in (module.t, module.p, module.g)), strict=True):
        attention = p.flatten() @ g.flatten()
        groups.append(t * attention)
    expected = feature + module.norm(module.z(torch.cat(groups, 1)))
    torch.testing.assert_close(module(feature), expected)


def test_cgnl_refuses_groups_that_do_not_divide():
    with pytest.raises(ModelError, match="8 groups must divide both 24 and 12"):
        cgnl.build(24)


def test_psp_pools_over_its_grids():
    module = psp.build(8, bins=(1, 3)).eval()
    feature = torch.randn(1, 8, 9, 9)
    cells = module.levels[1][0](feature)
    assert cells.shape == (1, 8, 3, 3)
    torch.testing.assert_close(cells[0, :, 1, 2], feature[0, :, 3:6, 6:9].mean((1, 2)))
    assert module.fuse[0].in_channels == 16


def test_resize_follows_the_convention():
    ramp = torch.arange(2.0).expand(1, 1, 1, 2)
    assert resize(ramp, (1, 3), align_corners=True).flatten().tolist() == [0, 0.5, 1]
    assert resize(ramp, (1, 4), align_corners=False).flatten().tolist() == [0, 0.25, 0.75, 1]
    assert resize(ramp, (1, 2), align_corners=True) is ramp


@pytest.mark.parametrize("align_corners", [False, True])
def test_block_hands_one_convention_to_its_parts(align_corners):
    block = GlobalThenLocal(8, aggregation="psp", distribution="mask", align_corners=align_corners)
    parts = [part for part in block.modules() if hasattr(part, "align_corners")]
    assert len(parts) == 3
    assert all(part.align_corners is align_corners for part in parts)


def test_block_takes_names_mappings_and_modules():
    feature = torch.randn(2, 8, 13, 17)
    identity = GlobalThenLocal(8, aggregation=nn.Identity())
    assert identity(feature) is feature
    window = GlobalThenLocal(8, aggregation="none", distribution={"name": "affinity", "window": 5})
    assert window.distribution.window.side == 5
    assert window(feature).shape == feature.shape


def test_block_at_half_resolution_aggregates_there_and_distributes_at_full():
    class Record(nn.Module):
        def forward(self, *features):
            self.sizes = [tuple(feature.shape[2:]) for feature in features]
            return features[0]

    aggregation, distribution = Record(), Record()
    block = GlobalThenLocal(8, aggregation=aggregation, distribution=distribution, aggregation_stride=2)
    block(torch.randn(1, 8, 33, 41))
    assert aggregation.sizes == [(16, 20)]  # unpadded
    assert distribution.sizes == [(33, 41), (33, 41)]


def test_half_resolution_names_the_smallest_size_that_works():
    module = GlobalThenLocal(8, aggregation="none", aggregation_stride=2).eval()
    with pytest.raises(ModelError, match="2x40 positions is too small for aggregation_stride 2, which needs 3x3"):
        module(torch.zeros(1, 8, 2, 40))
    assert module(torch.zeros(1, 8, 3, 3)).shape == (1, 8, 3, 3)


def test_unknown_names_options_and_strides_are_refused_with_the_nearest():
    with pytest.raises(ParamsError, match="did you mean 'psp'"):
        GlobalThenLocal(8, aggregation="pspp")
    with pytest.raises(ModelError, match="no option 'windw'; did you mean 'window'"):
        GlobalThenLocal(8, aggregation="none", distribution={"name": "affinity", "windw": 3})
    with pytest.raises(ModelError, match="no option 'align_corners'"):
        GlobalThenLocal(8, aggregation={"name": "psp", "align_corners": False})
    with pytest.raises(ModelError, match="allowed are 1 and 2"):
        GlobalThenLocal(8, aggregation="none", aggregation_stride=4)
