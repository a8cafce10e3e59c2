"""Several networks, flips and a temperature: the mean of the probabilities, and what is refused."""

import math

import pytest
import torch
from monai.networks.nets import UNet
from test_volume_inferer import infer, network, unet

from kvseg_monai import SETR
from kvseg_monai.errors import InputError
from kvseg_monai.handlers import StrictCheckpointLoader
from kvseg_monai.inferers import Ensemble
from kvseg_monai.utils.settings import files_of_weights
from kvseg_monai.utils.weights import save_whole

VOLUME = torch.rand(1, 1, 50, 60, 5, generator=torch.Generator().manual_seed(0))


def trainings(folder, count=3, **settings):
    """Networks of other seeds, and their files."""
    nets, paths = [], []
    for seed in range(count):
        torch.manual_seed(seed)
        nets.append(SETR(1, 4, 64, size="tiny", patch_size=8).eval())
        paths.append(folder / f"{seed}" / "model.pt")
        paths[-1].parent.mkdir()
        save_whole(nets[-1].state_dict(), paths[-1], settings={"image_size": [64, 64], **settings})
    return nets, paths


def together(paths, volume=VOLUME, **options):
    """Probabilities of an ensemble, its weights loaded from the files."""
    net = SETR(1, 4, 64, size="tiny", patch_size=8).eval()
    ensemble = Ensemble(paths, **options)
    StrictCheckpointLoader(paths, net, ensemble=ensemble)._load()
    return infer(net, volume, ensemble=ensemble).softmax(1)


@pytest.mark.parametrize("sides", [(50, 61), (64, 64), (70, 90)])
def test_the_probabilities_of_several_weights_are_averaged(sides, tmp_path):
    nets, paths = trainings(tmp_path)
    volume = torch.rand(1, 1, *sides, 3, generator=torch.Generator().manual_seed(1))
    expected = torch.stack([infer(net, volume).softmax(1) for net in nets]).mean(0)
    torch.testing.assert_close(together(paths, volume), expected, atol=1e-6, rtol=1e-5)


def test_one_of_a_list_is_as_one_alone(tmp_path):
    nets, paths = trainings(tmp_path, 1)
    assert torch.equal(together(paths), infer(nets[0], VOLUME).softmax(1))


@pytest.mark.parametrize(("flip", "turns"), [([0], [(), (2,)]), ([1], [(), (3,)]), ([1, 0], [(), (2,), (3,), (2, 3)])])
def test_flips_are_those_of_the_training_and_all_of_them(flip, turns):
    net = network()
    ensemble = Ensemble("model.pt", tta="true", flip=flip)
    made = infer(net, VOLUME, ensemble=ensemble).softmax(1)
    each = [infer(net, VOLUME.flip(dims)).softmax(1).flip(dims) for dims in turns]  # (1, C, X, Y, Z), as (B, C, X, Y)
    torch.testing.assert_close(made, torch.stack(each).mean(0), atol=1e-4, rtol=1e-3)
    assert ensemble.facts() == {"networks": 1, "flips": len(turns), "temperature": 1.0}


def test_a_temperature_moves_no_label_of_one_network():
    net = network()
    plain, cooled = infer(net, VOLUME), infer(net, VOLUME, ensemble=Ensemble("model.pt", temperature="2.5"))
    torch.testing.assert_close(cooled.softmax(1), (plain / 2.5).softmax(1), atol=1e-5, rtol=1e-4)
    assert torch.equal(cooled.argmax(1), plain.argmax(1))
    assert cooled.softmax(1).max(1).values.mean() < plain.softmax(1).max(1).values.mean()


def test_windows_are_averaged_too():
    net = unet()
    volume = torch.rand(1, 1, 90, 64, 2)
    made = infer(net, volume, ensemble=Ensemble("model.pt", tta=True, flip=[1]))
    assert made.shape == (1, 3, 90, 64, 2)
    assert not torch.equal(made, infer(net, volume))


def test_no_probability_is_without_a_logarithm():
    sure = UNet(2, 1, 2, channels=(4, 8), strides=(2,)).eval()
    ensemble = Ensemble("model.pt", temperature=1e-30)
    assert infer(sure, VOLUME, ensemble=ensemble).isfinite().all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tta": True}, "--tta is true, but these weights were trained without flips, or do not say with which"),
        ({"tta": True, "flip": [2]}, r"--flip is \[2\]; it must be axes of a slice"),
        ({"tta": "perhaps", "flip": [0]}, "--tta is 'perhaps'; it must be true or false"),
        *(({"temperature": value}, "--temperature is .*; it must be a number above 0") for value in (0, -1, math.nan)),
        *(({"temperature": value}, "--temperature is .*; it must be a number above 0") for value in ("x", math.inf)),
        ({"ckpt_path": []}, "--ckpt_path is an empty list"),
        ({"ckpt_path": ["a.pt", "b.pt", "a.pt"]}, "--ckpt_path names a.pt twice"),
    ],
)
def test_what_cannot_be_is_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Ensemble(**{"ckpt_path": "model.pt", **options})


@pytest.mark.parametrize("other", [{"spacing": [1, 1]}, {"network_def": {"size": "small"}}, {"image_size": [32, 32]}])
def test_weights_of_other_trainings_are_no_ensemble(other, tmp_path):
    settings = {"spacing": [2, 2], "network_def": {"size": "tiny"}}
    _, paths = trainings(tmp_path, 2, **settings)
    Ensemble(paths)
    save_whole({"weight": torch.ones(1)}, paths[1], settings={"image_size": [64, 64], **settings, **other})
    with pytest.raises(InputError, match=f"{paths[1]} was trained with {next(iter(other))} .* and {paths[0]} with"):
        Ensemble(paths)


def test_each_file_is_loaded_strictly(tmp_path):
    _, paths = trainings(tmp_path, 2)
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other\.pt holds the weights of another network"):
        together([paths[0], tmp_path / "other.pt"])
    with pytest.raises(InputError, match=r"the weights .*missing\.pt are missing"):
        together([paths[0], tmp_path / "missing.pt"])


def test_paths_are_read_as_they_are_typed():
    assert [str(path) for path in files_of_weights("a.pt")] == ["a.pt"]
    assert [str(path) for path in files_of_weights(["a.pt", "b.pt"])] == ["a.pt", "b.pt"]


def test_memory_is_that_of_a_block_of_slices():
    """The scores of the networks are never kept side by side."""
    sizes = []
    net = network()
    net.register_forward_hook(lambda module, given, made: sizes.append(tuple(made.shape)))
    infer(net, torch.rand(1, 1, 64, 64, 40), ensemble=Ensemble("model.pt", tta=True, flip=[0]), slices_at_once=4)
    assert set(sizes) == {(4, 4, 64, 64)}
    assert len(sizes) == 20
