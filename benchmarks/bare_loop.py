"""Train MONAI's UNet in a bare loop, with nothing of ours: what the bundles' recipe has to beat.

``python benchmarks/bare_loop.py --dataset_dir ACDC --split split.json --target DIR`` trains on slices drawn at random,
each scaled to mean 0 and deviation 1, turned and mirrored, by AdamW with Dice (of the organs) and cross-entropy, and
writes ``results.csv`` as a study does, for ``bundles/studies/recipe/summary.py``. A seed that is there is left.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    RandAffined,
    RandFlipd,
    Spacingd,
    SpatialPadd,
)
from tqdm import tqdm

from kvseg_monai.utils.files import write_text

KEYS = ["image", "label"]
BATCH, RATE, WARMUP, DECAY, CLIP = 16, 1e-3, 100, 0.01, 1.0


def read(options: argparse.Namespace, section: str) -> list[dict]:
    """Return the volumes of a section, (1, X, Y, Z) on the network's spacing."""
    patients = json.loads(options.split.read_text())[section]
    listed = json.loads((options.dataset_dir / "datalist.json").read_text())
    entries = [entry for name in ("training", "validation", "test") for entry in listed.get(name, [])]
    load = Compose(
        [
            LoadImaged(KEYS),
            EnsureChannelFirstd(KEYS),
            Orientationd(KEYS, axcodes="LPS", labels=None),
            Spacingd(KEYS, pixdim=(options.spacing, options.spacing, -1), mode=("bilinear", "nearest")),
        ]
    )
    cases = [entry for entry in entries if entry["patient"] in patients]
    return [
        {**load({key: options.dataset_dir / case[key] for key in KEYS}), "patient": case["patient"]}
        for case in tqdm(cases, desc=section, unit="volume")
    ]


def batches(volumes: list[dict], side: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Draw slices, any at random, and turn, scale and mirror them."""
    draw = np.random.RandomState(seed)
    augment = Compose(
        [
            NormalizeIntensityd("image"),
            RandAffined(
                KEYS,
                (side, side),
                prob=0.9,
                rotate_range=0.5,
                scale_range=(0.2, 0.2),
                translate_range=(side // 10,) * 2,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandFlipd(KEYS, 0.5, 0),
            RandFlipd(KEYS, 0.5, 1),
        ]
    ).set_random_state(seed)
    while True:
        items = []
        for _ in range(BATCH):
            volume = volumes[draw.randint(len(volumes))]
            index = draw.randint(volume["image"].shape[-1])
            items.append(augment({key: volume[key][..., index].as_tensor() for key in KEYS}))
        yield tuple(torch.stack([torch.as_tensor(item[key]) for item in items]) for key in KEYS)


def train(options: argparse.Namespace, volumes: list[dict], seed: int) -> torch.nn.Module:
    """Train for so many steps; the rate rises for 100 of them and falls as a polynomial."""
    torch.manual_seed(seed)
    network = UNet(2, 1, options.classes, (32, 64, 128, 256, 512), (2, 2, 2, 2), num_res_units=2)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True, batch=True, include_background=False)
    drawn = batches(volumes, options.side, seed)
    for step in tqdm(range(options.steps), desc=f"seed {seed}", unit="step"):
        share = (step + 1) / WARMUP if step < WARMUP else (1 - (step - WARMUP) / (options.steps - WARMUP)) ** 0.9
        optimizer.param_groups[0]["lr"] = RATE * share
        image, label = next(drawn)
        loss = loss_of(network(image.contiguous(memory_format=torch.channels_last)), label)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
    return network.eval()


@torch.no_grad()
def score(network: torch.nn.Module, volumes: list[dict], names: list[str]) -> pd.DataFrame:
    """Return a row for each patient and class: the mean Dice of the patient's volumes, on the network's spacing."""
    rows = []
    for volume in volumes:
        slices = volume["image"].as_tensor().movedim(-1, 0)  # (Z, 1, X, Y)
        slices = torch.stack([NormalizeIntensityd("image")({"image": image})["image"] for image in slices])
        sides = slices.shape[-2:]
        padded = SpatialPadd("image", [-(-side // 16) * 16 for side in sides])({"image": slices.movedim(0, 1)[0]})[
            "image"
        ]
        found = network(torch.as_tensor(padded)[:, None]).argmax(1)
        first = [(wide - side) // 2 for wide, side in zip(padded.shape[-2:], sides, strict=True)]
        found = found[:, first[0] : first[0] + sides[0], first[1] : first[1] + sides[1]]
        truth = volume["label"].as_tensor()[0].movedim(-1, 0)
        for value, name in enumerate(names, 1):
            one, other = found == value, truth == value
            total = int(one.sum() + other.sum())
            dice = 2 * int((one & other).sum()) / total if total else float("nan")
            rows.append({"patient": volume["patient"], "class": name, "dice": dice})
    return pd.DataFrame(rows).groupby(["patient", "class"], as_index=False).mean()


def main() -> None:
    """Train each seed that is not there, and add its rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset_dir", type=Path, required=True, metavar="DIR", help="folder with a datalist.json")
    parser.add_argument("--split", type=Path, required=True, metavar="FILE", help="who is in which section")
    parser.add_argument("--target", type=Path, required=True, metavar="DIR", help="where results.csv goes")
    parser.add_argument("--steps", type=int, default=448)
    parser.add_argument("--side", type=int, default=192, help="of the canvas, in pixels")
    parser.add_argument("--spacing", type=float, default=1.5, help="of the canvas, in mm")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    table = options.target / "results.csv"
    made = [pd.read_csv(table)] if table.is_file() else []
    left = [seed for seed in options.seeds if not made or seed not in set(made[0]["seed"])]
    names = json.loads((options.dataset_dir / "datalist.json").read_text())["labels"]
    options.classes = len(names)
    if not left:
        return
    training, test = (read(options, section) for section in ("training", "test"))
    options.target.mkdir(parents=True, exist_ok=True)
    for seed in left:
        start = time.process_time()
        network = train(options, training, seed)
        facts = {"net": "bare_unet", "attention": "own", "seed": seed, "training_seconds": time.process_time() - start}
        facts["parameters"] = sum(weight.numel() for weight in network.parameters())
        rows = score(network, test, [names[str(value)] for value in range(1, len(names))])
        made.append(rows.assign(**facts))
        write_text(table, pd.concat(made).to_csv(index=False))
        print(f"seed {seed}: Dice {rows['dice'].mean():.4f}", flush=True)


if __name__ == "__main__":
    main()
