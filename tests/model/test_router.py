import pickle

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from perceptkit.errors import SpecError
from perceptkit.model.cost import measured_macs
from perceptkit.model.fold import fold_batchnorm
from perceptkit.model.router import build_router
from perceptkit.spec.router import RouterSpec

SIZE = (64, 96)


@pytest.mark.parametrize("name", ["resnet8", "resnet10", "conv3", "patches", "mobilenetv3_small_050"])
def test_one_logit_per_block_at_the_bias_before_training(name):
    router = build_router(RouterSpec(name=name, downscale=2, keep=0.9), 7, SIZE).eval()
    logits_BR = router(torch.randn(3, 3, *SIZE))
    assert logits_BR.shape == (3, 7)
    assert logits_BR.sigmoid().sub(0.9).abs().max() < 0.05
    assert router.keep(torch.randn(3, 3, *SIZE)).all()


def test_the_net_sees_averages():
    router = build_router(RouterSpec(downscale=4), 2, SIZE).eval()
    image = torch.randn(1, 3, *SIZE)
    blocky = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(image, 4), scale_factor=4)
    torch.testing.assert_close(router(image), router(blocky))


def test_an_impossible_router_is_refused():
    with pytest.raises(SpecError, match="not a timm model"):
        build_router(RouterSpec(name="resnet8x"), 2, SIZE)
    with pytest.raises(SpecError, match=r"routing.router 'resnet10' does not take pictures of 0x0"):
        build_router(RouterSpec(name="resnet10", downscale=100), 2, SIZE)
    with pytest.raises(SpecError, match=r"'test_vit' does not .*: that is what downscale 100 leaves of"):
        build_router(RouterSpec(name="test_vit", downscale=100), 2, SIZE)
    with pytest.raises(SpecError, match=r"routing.router.name 'hf-hub:none/none' cannot be made"):
        build_router(RouterSpec(name="hf-hub:none/none"), 2, SIZE)
    with pytest.raises(SpecError, match="'conv3' has neither weights nor args"):
        build_router(RouterSpec(name="conv3", args={"depth": 3}), 2, SIZE)
    with pytest.raises(SpecError, match="'patches' has neither weights nor args"):
        build_router(RouterSpec(name="patches", weights="pretrained"), 2, SIZE)
    with pytest.raises(
        SpecError, match=r"'patches' does not take .* 6x12 .* of 48x96: lower downscale, 8 pixels"
    ):
        build_router(RouterSpec(name="patches", downscale=8), 2, (48, 96))


@pytest.mark.parametrize("name, deeper", [("resnet10", "resnet18"), ("resnet8", "cifar10_resnet20")])
def test_a_preset_starts_as_the_first_blocks_of_a_deeper_net(tmp_path, name, deeper):
    path = tmp_path / "deeper.safetensors"
    save_file(timm.create_model(deeper).state_dict(), path)
    own = build_router(RouterSpec(name=name, weights=str(path)), 2, SIZE).trunk.state_dict()
    written = load_file(path)
    assert all(torch.equal(value, written[key]) for key, value in own.items())
    assert any(".1." in key for key in written.keys() - own.keys())


def test_a_file_with_anything_else_is_refused(tmp_path):
    path = tmp_path / "deeper.safetensors"
    weights = timm.create_model("resnet18").state_dict()
    nothing = torch.zeros(1)
    for key in "layer5.0.conv1.weight", "layer1.0.conv9.weight", "layer1.x.conv1.weight", "neck.1.weight":
        save_file(weights | {key: nothing}, path)
        with pytest.raises(SpecError, match=rf"does not fit ResNet \(unknown: {key}\)"):
            build_router(RouterSpec(name="resnet10", weights=str(path)), 2, SIZE)
    save_file({key: value for key, value in weights.items() if not key.startswith("layer3.0.")}, path)
    with pytest.raises(SpecError, match="missing: layer3.0.conv1.weight"):
        build_router(RouterSpec(name="resnet10", weights=str(path)), 2, SIZE)
    save_file(weights, path)  # a net by timm's name is that net
    args = {"layers": [1, 1, 1, 1]}
    with pytest.raises(SpecError, match="unknown: layer1.1"):
        build_router(RouterSpec(name="resnet18", weights=str(path), args=args), 2, SIZE)


def test_three_convolutions():
    router = build_router(RouterSpec(name="conv3", downscale=1), 5, (32, 32)).eval()
    # at 16x16, 8x8 and 4x4 places
    expected = 9 * (256 * 3 * 16 + 64 * 16 * 32 + 16 * 32 * 64) + 64 * 5
    assert measured_macs(lambda: router(torch.zeros(1, 3, 32, 32))) == expected
    image = torch.randn(2, 3, 32, 32)
    before = router(image)
    convs = fold_batchnorm(router, image)
    assert convs == 3
    assert torch.allclose(router(image), before, atol=1e-5)  # by functions now


def test_a_seed_gives_the_weights_that_it_always_gave():
    torch.manual_seed(0)
    found = [
        conv for conv in build_router(RouterSpec(name="conv3"), 2, SIZE).trunk if hasattr(conv, "stride")
    ]
    torch.manual_seed(0)
    for conv, (width, out) in zip(found[:3], ((3, 16), (16, 32), (32, 64)), strict=True):
        fresh = torch.nn.Conv2d(width, out, 3, 2, padding=1, bias=False)
        torch.nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
        assert torch.equal(conv.weight, fresh.weight)


def test_patches():
    router = build_router(RouterSpec(name="patches", downscale=1), 5, (21, 34)).eval()
    # 5x8 whole patches of 4x4 pixels in three colours, 2x4 whole patches of 2x2 of these
    expected = 40 * 48 * 32 + 8 * 128 * 64 + 64 * 5
    assert measured_macs(lambda: router(torch.zeros(1, 3, 21, 34))) == expected
    assert fold_batchnorm(router, torch.zeros(1, 3, 21, 34)) == 2
    (small, small_bias), (large, large_bias) = (
        [v.detach() for v in layer[:2]] for layer in router.trunk.layers()
    )
    image = torch.randn(1, 3, 21, 34)
    features = torch.empty(32, 4, 8)
    for y in range(4):
        for x in range(8):
            patch = image[0, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            features[:, y, x] = ((small * patch).sum((1, 2, 3)) + small_bias).clamp(min=0)
    places = [features[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] for y in range(2) for x in range(4)]
    mean = torch.stack([((large * p).sum((1, 2, 3)) + large_bias).clamp(min=0) for p in places]).mean(0)
    torch.testing.assert_close(router(image)[0], router.decide(mean))


@torch.no_grad()
@pytest.mark.parametrize("downscale", [1, 2])
@pytest.mark.parametrize("name", ["conv3", "patches", "resnet8"])
def test_a_bare_router_is_the_router(name, downscale):
    torch.manual_seed(0)
    router = build_router(RouterSpec(name=name, downscale=downscale), 5, (32, 32)).eval()
    image = torch.randn(3, 3, 32, 32)
    assert router.bare() is router  # it has norms
    fold_batchnorm(router, image)
    bare = router.bare()
    assert (bare is router) == (name == "resnet8")
    near = 1e-5 if name == "patches" else 0
    torch.testing.assert_close(bare(image), router(image), rtol=near, atol=near)
    router.load_state_dict({key: value + 0.1 for key, value in router.state_dict().items()})
    torch.testing.assert_close(
        bare(image), router(image), rtol=near, atol=near
    )  # the weights are the router's own
    torch.testing.assert_close(pickle.loads(pickle.dumps(bare))(image), router(image), rtol=near, atol=near)
    odd = torch.randn(2, 3, 32, 32)[..., :27, :30]  # of another size, and not contiguous
    torch.testing.assert_close(bare(odd), router(odd))
    expected = router(image)
    torch.testing.assert_close(router.to(memory_format=torch.channels_last).bare()(image), expected)
