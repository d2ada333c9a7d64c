"""An artifact's network on a device, in a precision."""

import pytest
import torch

from perceptkit.errors import SpecError
from perceptkit.runtime.eager import autocast_dtype, on_device
from tests.compact.conftest import SIZE, compacted

CPU = torch.device("cpu")


@pytest.fixture
def network():
    return compacted()[0]


def test_on_a_cpu_auto_is_float32(network, image_BCHW):
    got = on_device(network, CPU)(image_BCHW)
    assert all(torch.equal(value, got[name]) for name, value in network(image_BCHW).items())


def test_float32_stays_float32_where_the_caller_has_mixed_precision(network, image_BCHW):
    expected = network(image_BCHW)
    forward = on_device(network, CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = forward(image_BCHW)
        assert any(not torch.equal(value, network(image_BCHW)[name]) for name, value in expected.items())
    assert all(torch.equal(value, got[name]) for name, value in expected.items())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_is_close_and_not_the_same(network, image_BCHW, precision):
    got, expected = on_device(network, CPU, precision)(image_BCHW), network(image_BCHW)
    for name, value in expected.items():
        difference = (got[name].float() - value).abs().max()
        assert difference <= 0.078 * max(1, value.abs().max()), name
    assert any(not torch.equal(got[name].float(), value) for name, value in expected.items())


@pytest.fixture
def image_BCHW():
    with torch.inference_mode():
        yield torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(5))


def test_precision_by_name():
    assert autocast_dtype("auto", CPU) is None and autocast_dtype("32", CPU) is None
    assert autocast_dtype("bf16", CPU) == torch.bfloat16
    with pytest.raises(SpecError, match="'fp8' is not a precision; choose one of 32, bf16, fp16"):
        autocast_dtype("fp8", CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_a_device_that_is_not_there(network):
    with pytest.raises(SpecError, match="device 'cuda' cannot be used here"):
        on_device(network, torch.device("cuda"))


@pytest.mark.gpu
def test_on_a_gpu_the_network_itself_stays(network):
    image = torch.randn(2, 3, *SIZE)
    with torch.inference_mode():
        got = on_device(network, torch.device("cuda"), "32")(image)
        assert all(value.is_cuda for value in got.values())
        assert not next(network.parameters()).is_cuda
        for name, value in network(image).items():
            assert torch.allclose(got[name].cpu(), value, atol=1e-2)
