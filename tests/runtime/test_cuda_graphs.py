"""The logic around CUDA graphs, with a recorder that needs no GPU; the real one on a GPU."""

import pytest
import torch

from perceptkit.runtime.cuda_graphs import GraphedForward


def fake_record(forward, image):
    """Like a graph: fixed input and output memory, and a replay that fills it."""
    outputs = {name: torch.empty_like(value) for name, value in forward(image).items()}

    def replay():
        for name, value in forward(image).items():
            outputs[name].copy_(value)

    return replay, outputs


def double(image):
    return {"twice": image * 2}


def test_each_shape_is_recorded_once():
    recorded = []

    def record(forward, image):
        recorded.append(tuple(image.shape))
        return fake_record(forward, image)

    graphed = GraphedForward(double, record)
    for batch in (1, 2, 1, 2, 1):
        image = torch.randn(batch, 3, 4, 4)
        assert torch.equal(graphed(image)["twice"], image * 2)
    assert recorded == [(1, 3, 4, 4), (2, 3, 4, 4)]


def test_results_outlive_the_next_replay():
    graphed = GraphedForward(double, fake_record)
    first = graphed(torch.ones(1, 3, 2, 2))["twice"]
    graphed(torch.zeros(1, 3, 2, 2))
    assert torch.equal(first, torch.full((1, 3, 2, 2), 2.0))


def test_the_caller_s_image_stays_the_caller_s():
    graphed, image = GraphedForward(double, fake_record), torch.ones(1, 3, 2, 2)
    graphed(image)
    graphed(torch.zeros(1, 3, 2, 2))
    assert torch.equal(image, torch.ones(1, 3, 2, 2))


def test_shapes_beyond_the_limit_run_without_a_graph():
    graphed = GraphedForward(double, fake_record, limit=1)
    for batch in (1, 2, 3):
        assert graphed(torch.ones(batch, 3, 2, 2))["twice"].shape[0] == batch
    assert len(graphed.graphs) == 1


@pytest.mark.gpu
def test_on_a_gpu():
    network = torch.nn.Conv2d(3, 4, 3).cuda().eval()
    graphed = GraphedForward(lambda image: {"x": network(image)})
    with torch.inference_mode():
        for batch in (1, 2, 1):
            image = torch.randn(batch, 3, 16, 16, device="cuda")
            assert torch.allclose(graphed(image)["x"], network(image), atol=1e-3)
