"""Artefacts of MR acquisition: what each does to the signal, where, and that none does anything at probability 0."""

import numpy as np
import pytest
import torch
from torch import Tensor

from kvseg_monai.errors import InputError
from kvseg_monai.transforms import (
    SIZES,
    PrepareAugmentedBatch,
    RandAffineBatchd,
    RandBiasFieldBatchd,
    RandGaussianNoiseBatchd,
    RandGhostingBatchd,
    RandLowResolutionBatchd,
    RandMotionBatchd,
    collate_slices,
)

ARTEFACTS = [RandBiasFieldBatchd, RandGhostingBatchd, RandMotionBatchd, RandLowResolutionBatchd]
every_artefact = pytest.mark.parametrize("artefact", ARTEFACTS)


def images(count: int = 6, channels: int = 1, sides: tuple[int, int] = (40, 36)) -> Tensor:
    """Smooth bodies in air, which is 0."""
    coarse = torch.rand(count, channels, 8, 7, generator=torch.Generator().manual_seed(0))
    body = torch.nn.functional.pad(coarse, (1, 1, 1, 1))
    return torch.nn.functional.interpolate(body, sides, mode="bilinear").clip(0)


def seeded(artefact: type, seed: int = 0, **given):
    made = artefact("image", **{"prob": 1.0, **given})
    made.set_random_state(seed)
    return made


def applied(artefact, batch: Tensor, **more) -> Tensor:
    return artefact({"image": batch, **more})["image"]


@every_artefact
def test_a_probability_of_0_leaves_every_bit_and_draws_nothing(artefact):
    off = seeded(artefact, prob=0)
    batch = images()
    assert applied(off, batch) is batch
    assert off.R.rand() == np.random.RandomState(0).rand()


@every_artefact
def test_some_slices_are_changed_and_the_others_keep_every_bit(artefact):
    some = seeded(artefact, prob=0.5)
    batch = images(60)
    changed = (applied(some, batch) != batch).flatten(1).any(1)
    assert torch.equal(changed, torch.as_tensor(some.chosen))
    assert 18 <= changed.sum() <= 42


@every_artefact
@pytest.mark.parametrize("channels", [1, 3])
def test_intensities_count_from_the_least_of_a_slice(artefact, channels):
    """So that z-scores, which are negative, are changed as what they were made from."""
    batch = images(channels=channels)
    plain, scored = applied(seeded(artefact), batch), applied(seeded(artefact), 3 * batch - 5)
    torch.testing.assert_close(scored, 3 * plain - 5, atol=1e-5, rtol=0)
    assert plain.min() >= batch.min() - 1e-6  # magnitudes
    assert (plain - batch).abs().mean() > 1e-3


@every_artefact
def test_what_is_beyond_a_slice_stays(artefact):
    """In a batch of slices of several sizes, filled up with zeros, which for z-scores is no air."""
    small, large = images(1, sides=(20, 30))[0] - 3, images(1)[0] - 3
    batch = collate_slices([[{"image": small}, {"image": large}]])
    made = artefact("image", prob=1.0)
    made.set_random_state(1)
    found = made(batch)["image"]
    assert torch.equal(found[0, :, 20:], torch.zeros(1, 20, 36))
    assert torch.equal(found[0, :, :, 30:], torch.zeros(1, 40, 6))
    assert found[0, :, :20, :30].min() > -3.001


def test_a_bias_field_is_a_smooth_polynomial():
    bias = seeded(RandBiasFieldBatchd)
    flat = torch.ones(5, 1, 40, 36)
    flat[:, :, 0, 0] = 0  # air
    log = applied(bias, flat)[:, 0].double().log()
    log[:, 0, 0] = np.nan
    x, y = ((np.arange(side) + 0.5) * 2 / side - 1 for side in (40, 36))
    powers = [np.outer(x**i, y**j) for i in range(4) for j in range(4 - i)]
    terms = torch.as_tensor(np.stack(powers)).flatten(1).T[1:]
    for field in log.flatten(1)[:, 1:]:
        coefficients = torch.linalg.lstsq(terms, field[:, None]).solution
        torch.testing.assert_close((terms @ coefficients)[:, 0], field, atol=1e-5, rtol=0)
        assert field.std() > 0.1
        assert abs(field.mean()) < 0.05  # no side of a slice is brighter for sure


@pytest.mark.parametrize("axis", [0, 1])
def test_ghosts_are_copies_at_equal_distances(axis):
    ghosting = seeded(RandGhostingBatchd, ghosts=(4, 4), intensity=(0.8, 0.8))
    point = torch.zeros(20, 1, 40, 40)
    point[:, :, 12, 17] = 1
    made = applied(ghosting, point)[torch.as_tensor(ghosting.axis == axis)][0, 0]
    line = made[:, 17] if axis == 0 else made[12]
    places = [(place + 10 * copy) % 40 for copy in range(4) for place in ((12, 17)[axis],)]
    assert sorted(line.topk(4).indices.tolist()) == sorted(places)
    torch.testing.assert_close(line[places], torch.tensor([0.8, 0.2, 0.2, 0.2]), atol=0.8 / 40 + 1e-6, rtol=0)
    others = made[:, torch.arange(40) != 17] if axis == 0 else made[torch.arange(40) != 12]
    assert others.abs().max() < 1e-6


def test_a_patient_who_moves_at_the_very_end_is_not_seen():
    motion = seeded(RandMotionBatchd)
    batch = images()
    motion.randomize(len(batch))
    motion.moments[:] = 1.0
    sizes = np.full((6, 2), (40, 36))
    torch.testing.assert_close(motion._change(batch, sizes), batch, atol=1e-6, rtol=0)
    motion.moments[:] = 0.2
    assert (motion._change(batch, sizes) - batch).abs().mean() > 0.003


def test_motion_leaves_the_anatomy_where_it_was():
    """The centre of a disk moves by less than a pixel, although the patient moves by up to 3."""
    x, y = torch.meshgrid(torch.arange(60.0), torch.arange(60.0), indexing="ij")
    disk = ((x - 30) ** 2 + (y - 26) ** 2 < 100).float().expand(40, 1, -1, -1)
    made = applied(seeded(RandMotionBatchd), disk)
    halves = (made > 0.5).float()
    centres = torch.stack([(halves * at).sum((1, 2, 3)) / halves.sum((1, 2, 3)) for at in (x, y)], dim=1)
    assert (centres - torch.tensor([30.0, 26.0])).abs().max() < 1
    assert (made - disk).abs().amax((1, 2, 3)).min() > 0.05


def test_low_resolution_keeps_the_middle_of_k_space_alone():
    coarse = seeded(RandLowResolutionBatchd, share=(0.5, 0.5))
    x = torch.arange(40) * 2 * torch.pi / 40
    waves = {number: (2 + torch.cos(number * x))[:, None].expand(40, 40) for number in (3, 9, 12, 19)}
    batch = torch.stack(list(waves.values()))[:, None]
    batch[:, :, :, :2] = 0  # air
    made = applied(coarse, batch)
    spectrum = torch.fft.fft(made[:, 0].mean(2), dim=1).abs() / 20
    kept = [spectrum[at, number].item() for at, number in enumerate(waves)]
    assert kept[:2] == pytest.approx([0.95, 0.95], abs=0.01)
    assert kept[2:] == pytest.approx([0, 0], abs=0.01)


def prepare(*artefacts) -> PrepareAugmentedBatch:
    affine = {"rotate_range": 0.26, "translate_range": [4, 4], "scale_range": [0.2, 0.2]}
    transforms = [
        RandAffineBatchd(["image", "label"], prob=0.9, spatial_size=(40, 36), mode=["bilinear", "nearest"], **affine),
        RandGaussianNoiseBatchd("image", prob=0.3, std=0.05),
    ]
    return PrepareAugmentedBatch(transforms, artefacts).set_random_state(5)


def test_the_rest_of_the_augmentation_draws_the_same_with_and_without():
    batch = {"image": images(), "label": images().round(), "case": ["a"] * 6}
    image, label = prepare()(batch)
    off = prepare(*(artefact("image", prob=0) for artefact in ARTEFACTS))(batch)
    assert torch.equal(off[0], image)
    assert torch.equal(off[1], label)
    on = prepare(*(artefact("image", prob=1) for artefact in ARTEFACTS))
    changed, same = on(batch)
    assert torch.equal(same, label)
    assert (changed - image).abs().mean() > 0.01
    repeated = prepare(*(artefact("image", prob=1) for artefact in ARTEFACTS))(batch)[0]
    assert torch.equal(repeated, changed)


@every_artefact
@pytest.mark.parametrize("prob", [-0.1, 1.5, "much", True, None])
def test_no_probability(artefact, prob):
    with pytest.raises(InputError, match=rf"--{artefact.OPTION} is .*; it must be a probability, from 0 to 1"):
        artefact("image", prob=prob)


@every_artefact
def test_the_device_is_not_waited_for(artefact):
    made = seeded(artefact)
    batch = images().to("meta")  # on which nothing can be read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kvseg_monai.transforms.mr_artefacts.send", lambda values, device: values.to(device))
        assert applied(made, batch, **{SIZES: torch.full((6, 2), 30)}).shape == batch.shape
