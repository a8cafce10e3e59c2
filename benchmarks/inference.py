"""Where the CPU time of inference goes: imports, network, and the rest of the job; and the most memory that it held.

``python benchmarks/inference.py --volume FILE`` runs each bundle's inference on one volume through MONAI's runner, in a
process of its own with one thread. ``--make 512,441,144 --spacing 1,1,3`` makes a volume of that shape and voxel
size instead: a body in the form of a cylinder that reaches the borders, with noise. The weights are random.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from kvseg_monai.utils.provenance import commit, machine

ROOT = Path(__file__).resolve().parents[1]
NETS = {"setr": "SETR", "transunet": "TransUNet", "cvt": "CvT"}
JOB = """
import json, resource, sys, time
import monai.bundle, kvseg_monai.handlers, kvseg_monai.inferers, kvseg_monai.transforms
import torch
from kvseg_monai.nets.encoder_decoder import EncoderDecoder
from monai.bundle.scripts import run
imported = time.process_time()
network, forward = 0.0, EncoderDecoder.forward

def timed(self, image):
    global network
    start = time.process_time()
    logits = forward(self, image)
    network += time.process_time() - start
    return logits

EncoderDecoder.forward = timed
torch.manual_seed(0)
folder, bundle, net, size, side, options = json.loads(sys.argv[1])
weights = getattr(kvseg_monai, net)(1, 4, side, attention="kv", size=size).state_dict()
torch.save(weights, f"{folder}/model.pt")
built = time.process_time()
run(
    config_file=f"{bundle}/configs/inference.json", bundle_root=bundle, dataset_dir=f"{folder}/data",
    output_dir=f"{folder}/out", ckpt_path=f"{folder}/model.pt", image_size=[side, side],
    **{"network_def#size": size, **options},
)
whole = time.process_time() - built
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print("MEASURED", json.dumps([imported, network, whole, peak]))
"""


def make_volume(target: Path, shape: Sequence[int], spacing: Sequence[float]) -> None:
    """Write a bright cylinder in noise, (X, Y, Z) voxels of ``spacing`` mm, as int16."""
    generator = np.random.default_rng(0)
    x, y = (np.linspace(-1, 1, side) for side in shape[:2])
    body = (x[:, None] ** 2 + y[None] ** 2 < 0.98)[..., None]
    volume = body * 400.0 + generator.normal(30, 20, shape)
    nib.save(nib.Nifti1Image(volume.clip(0).astype(np.int16), np.diag([*spacing, 1.0])), target)


def measure(net: str, size: str, side: int, volume: Path, options: dict[str, object]) -> list[float]:
    """Return CPU seconds of imports, of the network and of the job without its imports, and the peak memory in GB."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        data.mkdir()
        (data / volume.name).symlink_to(volume.resolve())
        job = [folder, str(ROOT / "bundles" / f"{net}_kv_segmentation"), NETS[net], size, side, options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            [sys.executable, "-c", JOB, json.dumps(job)], capture_output=True, text=True, env=environment
        )
    lines = [line for line in ended.stdout.splitlines() if line.startswith("MEASURED ")]
    if not lines:
        sys.exit(f"{net} {size} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
    return list(json.loads(lines[-1].removeprefix("MEASURED ")))


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--volume", type=Path, help="a NIfTI volume")
    source.add_argument("--make", help="shape of a volume to make, such as 512,441,144")
    parser.add_argument("--spacing", default="1.5,1.5,3", help="of a made volume, in mm (default: %(default)s)")
    parser.add_argument("--target_spacing", type=float, help="the network's, in mm; the bundles' 1.5 by default")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--sizes", nargs="+", default=["tiny"])
    parser.add_argument("--side", type=int, default=256, help="of the canvas (default: %(default)s)")
    parser.add_argument("--precision", default="fp32")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options: dict[str, object] = {"precision": arguments.precision}
    if arguments.target_spacing:
        options["spacing"] = [arguments.target_spacing] * 2
    with tempfile.TemporaryDirectory() as folder:
        volume = arguments.volume or Path(folder, "volume.nii.gz")
        if arguments.make:
            shape, spacing = ([float(each) for each in text.split(",")] for text in (arguments.make, arguments.spacing))
            make_volume(volume, [int(side) for side in shape], spacing)
        shape = " x ".join(map(str, nib.load(volume).shape))
        print(f"{shape}, canvas {arguments.side}, {arguments.precision}, {machine()}, commit {commit()}\n")
        print("| net | size | imports, s | network, s | job less imports, s | over network | peak, GB |")
        print("|---|---|---|---|---|---|---|")
        for size in arguments.sizes:
            for net in arguments.nets:
                imports, network, job, peak = measure(net, size, arguments.side, volume, options)
                row = (
                    f"| {net} | {size} | {imports:.1f} | {network:.1f} | {job:.1f} | {job / network:.2f} | {peak:.2f} |"
                )
                print(row, flush=True)


if __name__ == "__main__":
    main()
