"""What every network promises, as one class: a network's own tests derive from it and say what is special."""

import pytest
import torch

import kvseg_monai
from kvseg_monai.blocks import ATTENTION_KINDS

SIDE = 64

every_kind = pytest.mark.parametrize("kind", ATTENTION_KINDS)


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def image(*size: int) -> torch.Tensor:
    return torch.rand(2, 1, *(size or (SIDE, SIDE)), generator=torch.Generator().manual_seed(1))


def assert_every_parameter_gets_a_gradient(network: torch.nn.Module) -> None:
    output = network(image())
    (output * torch.randn_like(output)).sum().backward()
    idle = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


class NetContract:
    """The contract; a subclass names the network, its sizes and its golden values."""

    NET: str
    SIZES: tuple[str, ...] = ("tiny", "small", "base")
    GOLDEN: dict[str, tuple[float, float]]  # mean and standard deviation of the logits, by torch 2.13.0

    def build(self, *, seed: int = 0, **options) -> torch.nn.Module:
        torch.manual_seed(seed)
        return getattr(kvseg_monai, self.NET)(1, 4, SIDE, **{"attention": "kv", "size": "tiny", **options})

    def count_of(self, **options) -> int:
        with torch.device("meta"):  # no memory and no time for the large ones
            return count(self.build(**options))

    def saved_by_kv(self, size: str) -> int:
        """How many parameters fewer than qkv, from the formula."""
        raise NotImplementedError

    def num_blocks(self, size: str) -> int:
        raise NotImplementedError

    @pytest.mark.parametrize("size", [(64, 64), (96, 32), (16, 144), (112, 80)])
    @pytest.mark.parametrize("kind", ["kv", "kv_rel"])
    def test_any_multiple_of_the_stride_gives_logits_of_the_input_size(self, kind, size):
        with torch.no_grad():
            assert self.build(attention=kind).eval()(image(*size)).shape == (2, 4, *size)

    @every_kind
    def test_every_parameter_gets_a_gradient(self, kind):
        assert_every_parameter_gets_a_gradient(self.build(attention=kind))

    @every_kind
    def test_evaluation_is_deterministic_with_dropout(self, kind):
        network = self.build(attention=kind, dropout=0.3)
        with torch.no_grad():
            assert not torch.equal(network(image()), network(image()))
            network.eval()
            assert torch.equal(network(image()), network(image()))

    def test_what_kv_saves(self):
        for size in self.SIZES:
            parameters = {kind: self.count_of(attention=kind, size=size) for kind in ("qkv", "kv", "kv_pos")}
            assert parameters["qkv"] - parameters["kv"] == self.saved_by_kv(size)
            assert parameters["kv_pos"] - parameters["kv"] == self.num_blocks(size) * 50

    @every_kind
    def test_export_trace_script_and_state_dict_round_trips(self, kind, tmp_path):
        network, x = self.build(attention=kind).eval(), image()
        with torch.no_grad():
            expected = network(x)
            torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), expected)
            torch.testing.assert_close(torch.jit.trace(network, x)(x), expected)
            torch.testing.assert_close(torch.jit.script(network)(x), expected)
            torch.save(network.state_dict(), tmp_path / "model.pt")
            other = self.build(attention=kind, seed=5).eval()
            assert not torch.allclose(other(x), expected)
            other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
            torch.testing.assert_close(other(x), expected)

    @every_kind
    def test_one_image_and_a_batch_agree(self, kind):
        network, x = self.build(attention=kind).eval(), image()
        with torch.no_grad():
            torch.testing.assert_close(network(x)[1:], network(x[1:]), atol=1e-5, rtol=1e-5)

    def test_unknown_options_are_refused_with_what_is_allowed(self):
        with pytest.raises(ValueError, match="attention is 'vk'; it must be one of qkv, kv, kv_pos, kv_rel, qk, k"):
            self.build(attention="vk")
        with pytest.raises(ValueError, match=f"size is 'huge'; it must be one of {', '.join(self.SIZES)}"):
            self.build(size="huge")

    @pytest.mark.parametrize("img_size", [100, (64, 100), (64, 64, 64), 0, (-16, 16)])
    def test_wrong_image_sizes_are_refused(self, img_size):
        with pytest.raises(ValueError, match="img_size is"):
            getattr(kvseg_monai, self.NET)(1, 4, img_size, size="tiny")

    def test_an_input_off_the_grid_is_refused_with_the_nearest_size(self):
        with pytest.raises(ValueError, match=r"the input is 60 x 64; each side must be a multiple of 16.*64 x 64"):
            self.build()(image(60, 64))

    @pytest.mark.parametrize("kind", ["qkv", "kv", "kv_pos"])
    def test_golden_values(self, kind):
        """A change of these numbers means that trained weights no longer do what they did."""
        with torch.no_grad():
            output = self.build(attention=kind).eval()(image())
        assert (output.mean().item(), output.std().item()) == pytest.approx(self.GOLDEN[kind], rel=1e-3)
