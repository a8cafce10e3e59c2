"""Cost of one image in the networks of a study, counted anew from the study file and its bundles."""

import json

import pandas as pd
import torch
from monai.bundle import ConfigParser

from kvseg_monai.cost.counting import count_macs
from kvseg_monai.study.compare import kinds_of
from kvseg_monai.study.plan import Arm, Study, known_overrides


def count_macs_of(study: Study, table: pd.DataFrame) -> dict[tuple[str, str], int]:
    """Return the complete multiply-accumulates of one image, by net and attention kind, for the arms in ``table``."""
    channels = table.index.unique("class").size  # the mean is in the place of the background
    arms = {(arm.net, arm.attention): arm for arm in study.arms}
    return {key: _macs(study, arms[key], out_channels=channels) for key in kinds_of(table)}


def _macs(study: Study, arm: Arm, *, out_channels: int) -> int:
    """Build the arm's network on the meta device, which takes neither time nor memory, and count."""
    file = study.bundles_dir / arm.bundle / "configs" / "evaluate.json"
    parser = ConfigParser(json.loads(file.read_text(encoding="utf-8")))
    overrides = known_overrides(parser.get(), arm.overrides)
    # Of no weights that may lie about: what the study does not set is the bundle's default.
    parser.update({"settings": {}, **overrides, "network_def#out_channels": out_channels})
    with torch.device("meta"):
        network = parser.get_parsed_content("network_def").eval()
        image = torch.zeros(
            1, parser.get_parsed_content("network_def#in_channels"), *parser.get_parsed_content("image_size")
        )
    return count_macs(network, image)[0]
