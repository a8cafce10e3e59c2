"""What a training and an inference do on a GPU, checked without one: nothing mixes devices, no step waits for it."""

from functools import partial
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from gpu.stand_in import CARD, card, in_a_process, on_card
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.losses import DiceCELoss
from monai.optimizers import WarmupCosineSchedule
from support import run

import kvseg_monai
from kvseg_monai import transforms
from kvseg_monai.blocks import parameter_groups
from kvseg_monai.data import OnDevice
from kvseg_monai.errors import InputError
from kvseg_monai.handlers import ProgressBar, StopOnNan
from kvseg_monai.inferers import PrecisionInferer, VolumeInferer
from kvseg_monai.transforms.slices import SIZES, SLICES
from kvseg_monai.utils import tune_gpu, use_device
from kvseg_monai.utils.tensors import send

NETS = ("SETR", "TransUNet", "CvT")
KEYS = ["image", "label"]


def augmentation() -> transforms.PrepareAugmentedBatch:
    """All of the bundles' transforms, each applied."""
    made = transforms.PrepareAugmentedBatch(
        [
            transforms.RandAffineBatchd(
                KEYS, spatial_size=[64, 64], prob=1, rotate_range=0.2, mode=["bilinear", "nearest"]
            ),
            transforms.RandAdjustContrastBatchd("image", prob=1, gamma=[0.6, 1.6]),
            transforms.RandGaussianNoiseBatchd("image", prob=1, std=0.05),
            transforms.RandScaleIntensityBatchd("image", prob=1, factors=0.2),
        ]
    )
    return made.set_random_state(0)


def batches(device: str) -> list[dict]:
    """Two batches of slices drawn from volumes on a device, as the loader would."""
    case = {
        "image": torch.rand(1, 70, 60, 6, dtype=torch.float16, device=device),
        "label": torch.zeros(1, 70, 60, 6, dtype=torch.uint8, device=device),
        SLICES: [[2, 3], [4]],  # which stay on the host
        "case": "1.nii.gz",
    }
    draw = transforms.RandSlicesd(KEYS, num_samples=4).set_random_state(0)
    made = [transforms.collate_slices([draw(case), draw(case)]) for _ in range(2)]
    return [{**batch, SIZES: np.full((8, 2), (70, 60))} for batch in made]


def train(net: str, attention: str, device: str) -> None:
    """Two steps of MONAI's trainer as the bundles make it, of which none may ask for a number."""
    with card():
        network = on_card(
            partial(getattr(kvseg_monai, net), 1, 4, (64, 64), attention=attention, size="tiny", dropout=0.1)
        )
        groups = parameter_groups(network, learning_rate=1e-3, weight_decay=0.05, query_bias_lr_scale=2.0)
        optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=True)
        schedule = WarmupCosineSchedule(optimizer, warmup_steps=1, t_total=4)
        trainer = SupervisedTrainer(
            device=torch.device(CARD),
            max_epochs=1,
            train_data_loader=batches(device),
            epoch_length=3,  # of which two are made: at the end of an epoch the losses are looked at
            network=network,
            optimizer=optimizer,
            loss_function=DiceCELoss(to_onehot_y=True, softmax=True, batch=True),
            inferer=PrecisionInferer(),
            prepare_batch=augmentation(),
            non_blocking=True,
            optim_set_to_none=True,
            decollate=False,
            train_handlers=[StopOnNan(network, interval=32), ProgressBar()],
        )
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: schedule.step())
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), _end)
        # The bar reads the loss five times a second.
        with mock.patch.object(ProgressBar, "_describe"), pytest.raises(EOFError):
            trainer.run()
        assert trainer.state.iteration == 2
        assert trainer.state.output["loss"].device.type == CARD
        assert {weight.grad.device.type for weight in network.parameters() if weight.grad is not None} <= {CARD}


def _end() -> None:
    raise EOFError


@pytest.mark.parametrize("device", ["cpu", CARD])
@pytest.mark.parametrize(("net", "attention"), [(net, kind) for net in NETS for kind in ("kv", "kv_pos")])
def test_a_step_mixes_no_devices_and_waits_for_none(net, attention, device):
    """With the volumes on the host, and on the card."""
    in_a_process(train, net, attention, device)


def look_at_each_step() -> None:
    with card():
        network = on_card(lambda: torch.nn.Linear(1, 1))
        StopOnNan(network, interval=1)._note(
            SimpleNamespace(
                state=SimpleNamespace(
                    output={"loss": torch.rand((), device=CARD)}, epoch=1, iteration=1, epoch_length=3, batch={}
                )
            )
        )


def mix() -> None:
    with card():
        torch.rand(3, device=CARD) + torch.rand(3)


@pytest.mark.parametrize(("work", "reason"), [(look_at_each_step, "DataDependentOutput"), (mix, "DeviceMismatch")])
def test_the_stand_in_sees_what_it_is_for(work, reason):
    with pytest.raises(AssertionError, match=reason):
        in_a_process(work)


def infer(net: str) -> None:
    with card():
        network = on_card(partial(getattr(kvseg_monai, net), 1, 4, (64, 64), attention="kv", size="tiny"))
        volume = torch.rand(1, 1, 70, 60, 6, device=CARD)
        logits = VolumeInferer((64, 64), slices_at_once=4)(volume, network.train())  # folding asks for addresses
        assert (logits.shape, logits.device.type) == ((1, 4, 70, 60, 6), CARD)


@pytest.mark.parametrize("net", NETS)
def test_inference_mixes_no_devices(net):
    in_a_process(infer, net)


@pytest.mark.parametrize(("free", "share", "expected"), [(8000, 0.5, "meta"), (7999, 0.5, "cpu"), (1e9, 0.0, "cpu")])
def test_volumes_go_to_the_gpu_where_they_fit(free, share, expected):
    cases = [{"image": torch.zeros(1000), SLICES: [torch.zeros(2)], "case": "1"}, None]
    moved = mock.patch.object(torch.Tensor, "to", return_value=torch.empty(0, device="meta"))
    with moved, mock.patch("torch.cuda.mem_get_info", return_value=(free, 2e9)):
        OnDevice("cuda", share=share)(cases)
    assert (cases[0]["image"].device.type, cases[1], cases[0]["case"]) == (expected, None, "1")
    assert cases[0][SLICES][0].device.type == "cpu"  # by which slices are drawn


def test_a_loader_with_workers_has_its_volumes_on_the_host(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: pytest.fail("it looks for room on the GPU"))
    cases = [{"image": torch.zeros(3)}]
    OnDevice("cuda", num_workers=2)(cases)
    OnDevice("cpu")(cases)
    assert cases[0]["image"].device.type == "cpu"


class Pinned:
    """Tensor of the host that says how it is sent."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.calls: list[object] = []

    def pin_memory(self) -> "Pinned":
        self.calls.append("pin_memory")
        return self

    def to(self, device: object, *, non_blocking: bool) -> "Pinned":
        self.calls.append((str(device), non_blocking))
        return self


@pytest.mark.parametrize(("device", "calls"), [("cuda:0", ["pin_memory", ("cuda:0", True)]), ("cpu", [("cpu", True)])])
def test_what_is_sent_to_a_gpu_is_pinned(device, calls):
    assert send(Pinned(), torch.device(device)).calls == calls


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("cuda", "^--device is cuda, and torch finds no GPU here .*; give --device cpu, or leave it out$"),
        (torch.device("cuda:1"), "^--device is cuda:1, and torch finds no GPU here"),
        ("gpu", "^--device is 'gpu'; it must be cpu, cuda, or cuda:0, cuda:1 and so on$"),
        (3.5, "^--device is 3.5; it must be"),
    ],
)
def test_a_device_that_is_not_there(device, sentence):
    with pytest.raises(InputError, match=sentence):
        use_device(device)


def test_a_gpu_becomes_that_of_the_process(monkeypatch):
    chosen = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    for device in ("cpu", "cuda", "cuda:1"):
        use_device(device)
    assert [str(device) for device in chosen] == ["cuda", "cuda:1"]
    with pytest.raises(InputError, match=r"^--device is cuda:2, and torch finds 2 GPU\(s\) here; the last is cuda:1$"):
        use_device("cuda:2")


def test_convolutions_are_timed_on_a_gpu_alone(monkeypatch):
    for name, value in (("benchmark", False), ("deterministic", True)):
        monkeypatch.setattr(torch.backends.cudnn, name, value)
    tune_gpu("cpu")
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (False, True)
    tune_gpu("cuda:0")
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (True, False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["train", "evaluate", "inference"])
def test_a_bundle_without_a_gpu_ends_with_one_sentence(name, tmp_path, tiny_dataset):
    ended = run("setr_kv_segmentation", name, tmp_path, tiny_dataset, "--device", "cuda")
    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: --device is cuda, and torch finds no GPU here")
    assert "Traceback" not in ended.stderr
