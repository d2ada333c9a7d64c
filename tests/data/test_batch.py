"""Normalisation by hand, the layout, and what happens to targets."""

import numpy as np
import torch

from perceptkit.data.batch import collate
from perceptkit.data.sample import Sample


def sample(i, **targets):
    image = np.zeros((4, 6, 3), np.uint8)
    image[1, 2] = 255, 51, i
    return Sample(f"id {i}", image, targets)


def test_normalisation_by_hand():
    batch = collate([sample(0), sample(102)], mean=(0.5, 0.25, 0.4), std=(0.25, 0.5, 0.1))
    assert batch.image_BCHW.dtype == torch.float32
    # (1 - .5) / .25, (.2 - .25) / .5, (0 - .4) / .1; then (.4 - .4) / .1
    torch.testing.assert_close(batch.image_BCHW[0, :, 1, 2], torch.tensor([2.0, -0.1, -4.0]))
    torch.testing.assert_close(batch.image_BCHW[1, 2, 1, 2], torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(batch.image_BCHW[0, :, 0, 0], torch.tensor([-2.0, -0.5, -4.0]))


def test_layout_is_channels_last():
    batch = collate([sample(0), sample(1)], (0.5,) * 3, (0.5,) * 3)
    assert batch.image_BCHW.shape == (2, 3, 4, 6)
    assert batch.image_BCHW.is_contiguous(memory_format=torch.channels_last)


def test_targets_are_stacked_in_order_with_their_types():
    samples = [sample(i, seg=np.full((4, 6), i, np.int64), room=np.array(i)) for i in (3, 1)]
    batch = collate(samples, (0,) * 3, (1,) * 3)
    assert batch.ids == ["id 3", "id 1"]
    assert batch.targets["seg"].shape == (2, 4, 6) and batch.targets["seg"].dtype == torch.int64
    assert batch.targets["room"].tolist() == [3, 1]


def test_a_batch_is_a_copy():
    one = sample(5, depth=np.ones((1, 4, 6), np.float32))
    batch = collate([one], (0,) * 3, (1,) * 3)
    batch.image_BCHW.zero_()
    batch.targets["depth"].zero_()
    assert one.image.max() == 255 and one.targets["depth"].all()


def test_on_the_cpu_to_moves_nothing():
    batch = collate([sample(0)], (0,) * 3, (1,) * 3)
    assert batch.to(torch.device("cpu")) is batch
