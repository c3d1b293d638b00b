"""What a distribution does to a picture, on small networks whose answer is known."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gald import explanation
from gald.errors import ModelError, ParamsError
from gald.evaluate.explain import distribution_of, explain, telling_places
from gald.inference import as_input, predict
from gald.models.distribution.none import NoDistribution
from gald.models.segmentor import Segmentor, build_segmentor
from gald.params import ModelParams, read_yaml
from tests.unit.conftest import REPOSITORY

SIZE = (64, 80)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine several wait for each other
    yield
    torch.set_num_threads(before)


def network(**distribution: object) -> Segmentor:
    small = {"backbone": {"name": "tiny", "width": 16, "stem_width": 8, "output_stride": 4}, "channels": 16}
    base = read_yaml(REPOSITORY / "params" / "base.yaml")["model"]
    torch.manual_seed(0)
    return build_segmentor(ModelParams.model_validate(base | small | {"distribution": distribution}), 4).eval()


def picture() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return coarse.repeat(16, axis=0).repeat(16, axis=1)


def looked_at(model: Segmentor, at: tuple[tuple[int, int], ...] = ()) -> explanation.Explanation:
    return explain(model, picture(), predict(model, picture(), SIZE), at=at)


def features(model: Segmentor) -> tuple[torch.Tensor, torch.Tensor]:
    """Local and aggregated feature, step by step."""
    images = as_input(torch.from_numpy(picture())[None])
    local = model.head.before(model.backbone((images - model.mean) / model.std).main)
    return local, model.head.block.aggregation(local)


def test_equal_similarities_give_equal_weights_over_the_neighbours_that_exist() -> None:
    model = network(name="affinity")
    torch.nn.init.zeros_(distribution_of(model).affinity.query.weight)
    found = looked_at(model, at=((32, 40), (0, 0), (0, 40)))
    assert [place.cell for place in found.places] == [(8, 10), (0, 0), (0, 10)]
    np.testing.assert_allclose(found.weights[0, 0], np.full(9, 1 / 9), rtol=1e-6)
    np.testing.assert_allclose(found.weights[1, 0], [0, 0, 0, 0, 0.25, 0.25, 0, 0.25, 0.25], rtol=1e-6)
    np.testing.assert_allclose(found.weights[2, 0], [0, 0, 0] + [1 / 6] * 6, rtol=1e-6)
    assert found.overview.shape == found.positions == (16, 20)
    assert np.abs(found.overview).max() < 1e-5
    corner = [(down, right) for down, right, inside in found.neighbours(1) if inside]
    assert corner == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [place.why for place in looked_at(model).places][-1] == "in the picture's corner"  # none is most unequal


@torch.no_grad()
def test_weights_are_those_of_the_formula() -> None:
    model = network(name="affinity", heads=2, dilation=2)
    distribution = distribution_of(model)
    for projection in (distribution.affinity.query, distribution.affinity.key):
        torch.nn.init.normal_(projection.weight, std=0.5)
    found = looked_at(model, at=((32, 40),))
    local, aggregated = features(model)
    query = distribution.affinity.query(local)[0].unflatten(0, (2, 2))
    key = distribution.affinity.key(aggregated)[0].unflatten(0, (2, 2))
    shifts = [(down, right) for down in (-2, 0, 2) for right in (-2, 0, 2)]
    assert [(down, right) for down, right, _ in found.neighbours(0)] == shifts
    logits = [(query[:, :, 8, 10] * key[:, :, 8 + down, 10 + right]).sum(1) / 2**0.5 for down, right in shifts]
    expected = torch.stack(logits, dim=1).softmax(dim=1)
    np.testing.assert_allclose(found.weights[0], expected.numpy(), rtol=1e-4, atol=1e-6)
    unequal = 1 - (torch.special.entr(expected).sum(1) / np.log(9)).mean()
    assert found.overview[8, 10] == pytest.approx(float(unequal), abs=1e-5)
    assert unequal > 0.001
    assert looked_at(model).places[-1].why == "most unequal weights"


def test_a_known_mask() -> None:
    model = network(name="mask", reductions=1, residual="x")
    for layer in distribution_of(model).reduce:
        torch.nn.init.zeros_(layer[0].weight)
        torch.nn.init.zeros_(layer[0].bias)
        torch.nn.init.constant_(layer[1].bias, np.log(3))  # sigmoid(log 3) is 3/4
        with torch.no_grad():
            layer[1].bias[5] = 0
    found = looked_at(model)
    np.testing.assert_allclose(found.overview, np.full((16, 20), (15 * 0.75 + 0.5) / 16), rtol=1e-5)
    assert found.channels.tolist() == [0, 1, 2]  # all vary alike
    assert np.abs(found.channel_spread).max() < 1e-6
    assert (found.kind, found.output) == ("mask", "g + m·g + x")


@pytest.mark.parametrize(
    ("distribution", "kind", "output"),
    [
        ({"name": "affinity"}, "affinity", "norm(sum of a·v(g)) + x"),
        ({"name": "affinity", "weights": "uniform", "residual": "g"}, "uniform", "norm(mean of v(g)) + g"),
        ({"name": "depthwise"}, "other", "f(g) + x"),
        ({"name": "mask", "reductions": 1}, "mask", "g + m·g + g"),
    ],
)
def test_the_difference_is_that_of_the_network_without_its_distribution(
    distribution: dict[str, object], kind: str, output: str
) -> None:
    model = network(**distribution)
    torch.nn.init.normal_(model.head.classifier.weight)  # so that not one class wins everywhere
    torch.nn.init.zeros_(model.head.classifier.bias)
    found = looked_at(model)
    assert (found.kind, found.output) == (kind, output)
    assert f"LD gives {output}, of" in found.reading()
    assert len(found.places) == (0 if kind != "affinity" else len(found.weights))
    np.testing.assert_array_equal(found.labels, predict(model, picture(), SIZE))  # nothing stays changed
    model.head.block.distribution = NoDistribution()
    without = predict(model, picture(), SIZE)
    np.testing.assert_array_equal(found.without, without)
    assert found.differing == np.mean(found.labels != without) > 0


def test_an_explanation_survives_its_file_to_the_byte(tmp_path: Path) -> None:
    found = looked_at(network(name="affinity"))
    (tmp_path / "a.npz").write_bytes(found.packed())
    again = explanation.read(tmp_path / "a.npz")
    assert again.packed() == found.packed()
    assert (again.places, again.positions, again.reading()) == (found.places, found.positions, found.reading())
    (tmp_path / "a.npz").write_bytes(found.packed()[:100])
    with pytest.raises(ValueError, match=r"a\.npz is damaged"):
        explanation.read(tmp_path / "a.npz")


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(ModelError, match="no local distribution"):
        looked_at(network(name="none"))
    with pytest.raises(ParamsError, match=r"--at 64 3 is outside: rows go from 0 to 63, columns from 0 to 79"):
        looked_at(network(name="affinity"), at=((2, 2), (64, 3)))
    with pytest.raises(ParamsError, match="only an adaptive affinity has weights"):
        looked_at(network(name="mask", reductions=1), at=((2, 2),))


def test_telling_places() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 30:] = 1
    found = telling_places(labels, (10, 10), align_corners=False)
    assert [place.why for place in found] == [
        "on a predicted boundary",
        "inside a large region",
        "in the picture's corner",
    ]
    assert found[0].pixel == (19, 29)  # of the two rows in the middle the upper one
    assert found[0].cell == (4, 7)
    assert found[1].cell == (3, 3)  # columns 0 to 6 are of the class, so the third is farthest from both sides
    assert found[1].pixel == (14, 14)
    flat = telling_places(np.zeros((4, 4), np.uint8), (1, 1))
    assert [place.why for place in flat] == ["in the picture's corner"]
