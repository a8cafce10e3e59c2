"""A 2D network over a volume: the canvas, the precision, the folded norms; MONAI's SliceInferer is the reference."""

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SliceInferer
from monai.networks.nets import UNet
from torch import nn

import kvseg_monai
from kvseg_monai.errors import InputError
from kvseg_monai.inferers import PrecisionInferer, VolumeInferer, precision_of
from kvseg_monai.inferers.folding import fold

NETS = ("SETR", "TransUNet", "CvT")


def network(name: str = "TransUNet", **options: object) -> nn.Module:
    torch.manual_seed(0)
    net = getattr(kvseg_monai, name)(1, 4, (64, 64), size="tiny", **options)
    for module in net.modules():  # statistics as after a training, not the identity
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return net.eval()


def unet() -> nn.Module:
    torch.manual_seed(0)
    return UNet(2, 1, 3, channels=(8, 16, 32), strides=(2, 2), norm="batch").eval()


def infer(net: nn.Module, volume: torch.Tensor, **options: object) -> torch.Tensor:
    with torch.no_grad():
        return VolumeInferer((64, 64), **options)(volume, net)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [(64, 64, 5), (50, 37, 3), (1, 1, 1), (64, 20, 17)])
def test_a_slice_within_the_canvas_gives_what_monai_gives(name, size):
    net, volume = network(name), torch.rand(1, 1, *size)
    with torch.no_grad():
        expected = SliceInferer(spatial_dim=2, roi_size=(64, 64), sw_batch_size=4)(volume, net)
    assert torch.allclose(infer(net, volume, slices_at_once=4), expected, atol=1e-4)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("attention", ["qkv", "kv", "kv_pos", "kv_rel"])
def test_the_canvas_grows_with_the_slice(name, attention):
    net, volume = network(name, attention=attention), torch.rand(1, 1, 70, 30, 3)
    with torch.no_grad():
        whole = nn.functional.pad(volume[0].permute(3, 0, 1, 2), (17, 17, 5, 5))  # to 80 x 64
        expected = net(whole)[..., 5:75, 17:47].permute(1, 2, 3, 0)[None]
    assert torch.allclose(infer(net, volume), expected, atol=1e-4)


def test_a_network_that_takes_one_size_alone_gets_windows():
    net, volume = unet(), torch.rand(1, 1, 90, 64, 3)
    with torch.no_grad():
        windows = SliceInferer(spatial_dim=2, roi_size=(64, 64), sw_batch_size=4, overlap=0.25, mode="gaussian")
        expected = windows(volume, net)
    assert torch.allclose(infer(net, volume), expected, atol=1e-4)


def test_large_slices_go_fewer_at_a_time():
    seen = []
    net = network()
    net.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    infer(net, torch.rand(1, 1, 128, 100, 5), slices_at_once=8)
    assert seen == [(2, 1, 128, 112), (2, 1, 128, 112), (1, 1, 128, 112)]


def test_channels_and_metadata_stay():
    net = UNet(2, 3, 2, channels=(8, 16), strides=(2,)).eval()
    volume = MetaTensor(torch.rand(1, 3, 20, 30, 4), meta={"name": "a"})
    made = infer(net, volume)
    assert made.shape == (1, 2, 20, 30, 4)
    assert made.meta["name"] == "a"


@pytest.mark.parametrize("net", [network("CvT"), network("SETR"), unet()], ids=["CvT", "SETR", "UNet"])
def test_folding_changes_rounding_alone_and_leaves_the_network(net):
    image, before = torch.rand(2, 1, 64, 64), {name: value.clone() for name, value in net.state_dict().items()}
    folded = fold(net)
    with torch.no_grad():
        assert torch.allclose(folded(image), net(image), atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_no_norm_is_left_after_a_convolution():
    names = [type(module).__name__ for module in fold(network()).decoder.modules()]
    assert "BatchNorm2d" not in names
    assert "Conv2d" in names


def test_new_weights_are_seen():
    """Validation uses one inferer all along, while the network learns."""
    net, volume, inferer = network(), torch.rand(1, 1, 64, 64, 2), VolumeInferer((64, 64))
    with torch.no_grad():
        first = inferer(volume, net)
        assert torch.equal(inferer(volume, net), first)
        next(net.decoder.modules()).head.weight.mul_(2)
        second = inferer(volume, net)
        net.load_state_dict(network("TransUNet").state_dict())
        third = inferer(volume, net)
    assert not torch.allclose(first, second)
    assert torch.allclose(first, third)


def test_a_network_in_training_mode_draws_from_its_dropout():
    net, volume = network(dropout=0.5).train(), torch.rand(1, 1, 64, 64, 2)
    assert not torch.allclose(infer(net, volume), infer(net, volume))


@pytest.mark.parametrize("name", NETS)
def test_bf16_is_close_and_float32_again(name):
    net, volume = network(name), torch.rand(1, 1, 64, 64, 2)
    full, half = infer(net, volume), infer(net, volume, precision="bf16")
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    assert (full - half).abs().max() < 0.05 * full.abs().max()


def test_training_at_bf16_has_float32_gradients():
    net, image = network().train(), torch.rand(2, 1, 64, 64)
    logits = PrecisionInferer("bf16")(image, net)
    logits.mean().backward()
    assert logits.dtype == torch.float32
    assert all(weight.grad.dtype == torch.float32 for weight in net.parameters() if weight.grad is not None)


def test_an_unknown_precision_is_refused():
    sentence = "--precision is 'fp16'; it must be one of fp32, bf16, auto"
    with pytest.raises(InputError, match=sentence):
        VolumeInferer((64, 64), precision="fp16")
    with pytest.raises(InputError, match=sentence):
        PrecisionInferer("fp16")


def test_auto_is_what_the_processor_has(monkeypatch):
    for has, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("kvseg_monai.inferers.precision.has_bf16", lambda has=has: has)
        assert precision_of("auto", "cpu") == precision
    assert precision_of("fp32", "cpu") == "fp32"
