"""A canvas that grows with the body against overlapping windows: Dice of the same weights on the same volumes.

``python benchmarks/canvas.py --bundle setr_kv --weights FILE --dataset_dir DIR`` scores a list of the dataset both
ways, on the network's own grid: volumes that are wider than the canvas are shown to the network whole, or by MONAI's
``SliceInferer`` in windows that overlap by a quarter. Options of the bundle, as the network's size, follow as in
``kvseg train``.
"""

import argparse
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.metrics import DiceMetric
from monai.networks import one_hot

from kvseg_monai.bundle.find import TRAIN, find_bundle
from kvseg_monai.data import cases
from kvseg_monai.inferers import VolumeInferer
from kvseg_monai.utils.provenance import commit, machine
from kvseg_monai.utils.run_options import read_options
from kvseg_monai.utils.weights import load_weights


class Windows(VolumeInferer):
    """Inferer that always takes windows."""

    def __call__(self, inputs: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        """Map a volume to logits."""
        return self._by_windows(inputs, network)


@torch.no_grad()
def main() -> None:
    """Score both ways and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--base_dir", type=Path)
    parser.add_argument("--section", default="test")
    options, others = parser.parse_known_args()
    config = ConfigParser()
    config.read_config(find_bundle(options.bundle) / TRAIN)
    config.update(read_options(others))
    network = config.get_parsed_content("network").eval()
    load_weights(network, options.weights)
    prepare, canvas = (config.get_parsed_content(place) for place in ("validate#preprocessing", "image_size"))
    classes = config.get_parsed_content("num_classes")
    listed = cases(options.dataset_dir, options.section, base_dir=options.base_dir)
    ways = {"canvas": VolumeInferer(canvas), "windows": Windows(canvas)}
    scores = {name: DiceMetric(include_background=False) for name in ways}
    wider = 0
    for case in listed:
        volume = prepare(case)
        image, label = volume["image"][None], one_hot(volume["label"][None].float(), classes)
        wider += any(side > least for side, least in zip(image.shape[2:4], canvas, strict=True))
        for name, inferer in ways.items():
            found = inferer(image, network).argmax(1, keepdim=True)
            scores[name](one_hot(found, classes), label)
    means = {name: float(metric.aggregate()) for name, metric in scores.items()}
    print(
        f"{options.bundle}, {len(listed)} volumes, {wider} wider than {canvas}: mean Dice by windows "
        f"{means['windows']:.4f}, on the canvas {means['canvas']:.4f}; {machine()}, commit {commit()}"
    )


if __name__ == "__main__":
    main()
