"""Install weights as the model of a bundle: ``python -m kvseg_monai.deploy BUNDLE --weights FILE``.

The weights must be of the bundle's own network; its size and the like are those that they carry, where the bundle does
not name them itself. The model that was there is kept under a name with its date, so that it can be installed again by
the same command. A MONAI Label server takes the new weights with its next request.
"""

import argparse
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from torch import nn

from kvseg_monai.bundle.contents import build_network, read_json
from kvseg_monai.bundle.find import INFERENCE
from kvseg_monai.bundle.overrides import apply_settings
from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import atomic_write, discard
from kvseg_monai.utils.model_files import BEST, keep_earlier, record_of
from kvseg_monai.utils.program import program
from kvseg_monai.utils.settings import carried, read_settings
from kvseg_monai.utils.weights import load_weights, save_whole
from kvseg_monai.utils.weights_file import read_weights


def deploy(bundle: str | Path, weights: str | Path) -> Path:
    """Install ``weights`` as the model of a bundle, and return the model's path.

    Args:
        bundle: the bundle's folder.
        weights: a state dict, or the ``last.ckpt`` of a training.

    Raises:
        InputError: when the folder is no bundle, or the weights are missing or belong to another network, size or
            attention kind.
    """
    configuration = Path(bundle) / INFERENCE
    if not configuration.is_file():
        raise InputError(f"{configuration} is missing; give the folder of a bundle")
    config = ConfigParser(read_json(configuration))
    apply_settings(weights, [config])
    network = build_network(config)[0]
    load_weights(network, weights)
    model, record = Path(bundle) / "models" / BEST, record_of(Path(weights))
    if model.is_file() and _same_weights(model, network):
        return model
    keep_earlier(model)
    if record.is_file():
        with atomic_write(record_of(model), keep=True) as temporary:
            shutil.copy2(record, temporary)
    else:
        discard(record_of(model), keep=True)
    save_whole(network.state_dict(), model, settings=carried(read_settings(weights)))
    return model


def _same_weights(path: Path, network: nn.Module) -> bool:
    try:
        there, wanted = read_weights(path), network.state_dict()
    except InputError:  # a damaged model is replaced
        return False
    return there.keys() == wanted.keys() and all(torch.equal(there[name], wanted[name]) for name in wanted)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog=program("kvseg_monai.deploy"), description="Put weights in place.")
    parser.add_argument("bundle", metavar="BUNDLE", help="the bundle's folder")
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help="weights of the bundle's network, .pt or .safetensors"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    print(f"{options.weights} is now {deploy(options.bundle, options.weights)}")
