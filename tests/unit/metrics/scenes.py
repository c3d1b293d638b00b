"""Small label maps with regions, noise, thin structures and ignored pixels."""

import numpy as np


def drawn_pair(seed, num_classes, shape=(13, 17)):
    """Regions about random centres; the prediction has them moved, and both have some pixels of noise."""
    rng = np.random.default_rng(seed)
    centres = rng.random((6, 2)) * shape
    classes = rng.integers(0, num_classes, 6).astype(np.uint8)
    place = np.moveaxis(np.indices(shape), 0, -1)[..., None, :]
    maps = []
    for moved in (0, 1.5):
        offsets = centres + moved * rng.standard_normal(centres.shape)
        nearest = ((place - offsets) ** 2).sum(axis=-1).argmin(axis=-1)
        mask = classes[nearest]
        noise = rng.random(shape) < 0.05
        mask[noise] = rng.integers(0, num_classes, noise.sum())
        maps.append(mask)
    truth, prediction = maps
    truth[rng.random(shape) < 0.04] = 255
    truth[:, : rng.integers(0, 4)] = 255
    return truth, prediction
