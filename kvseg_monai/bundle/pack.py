"""Pack a bundle and trained weights into one zip: ``python -m kvseg_monai.pack BUNDLE --weights FILE --target DIR``.

``python -m monai.bundle download`` takes the zip. Overrides that the weights were trained with are given as to
``python -m monai.bundle run`` and become the packed configurations' defaults: whoever receives the bundle needs none.
"""

import argparse
import io
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvseg_monai._version import __version__
from kvseg_monai.bundle.contents import checksum_line, packed_files, read_json
from kvseg_monai.bundle.find import METADATA, find_bundle
from kvseg_monai.bundle.overrides import parse_with_overrides
from kvseg_monai.bundle.repack import command_to_repack
from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import refuse_foreign, write_bytes
from kvseg_monai.utils.overlap import refuse_overlap
from kvseg_monai.utils.program import program


def pack(
    bundle: str | Path,
    target: str | Path,
    *,
    weights: str | Path,
    overrides: Mapping[str, Any] | None = None,
    dataset_dir: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write ``NAME_vVERSION.zip`` and, for ``sha256sum -c``, ``NAME_vVERSION.zip.sha256``; return the zip's path.

    The same input gives the same bytes with the same version of torch, which writes the weights.

    Args:
        bundle: a bundle's folder, or its name in ``bundles/``.
        target: folder for the two files; made where it is missing.
        weights: state dict, or the ``last.ckpt`` of a training, of which the network alone is packed.
        overrides: of the configurations, name -> value, as in training.
        dataset_dir: folder of the training data, whose ``datalist.json`` names the classes and may hold a notice; both
            are passed on. None keeps the classes of the bundle's metadata.
        overwrite: replace a zip that is there, where it is still as it was written.

    Raises:
        InputError: when the bundle is incomplete or for another version of kvseg_monai, an override is unknown, the
            weights do not fit the network, the classes do not fit its output, a configuration holds an absolute path,
            or the zip exists, would lie in what is packed, or cannot be written.
    """
    folder = find_bundle(bundle)
    archive = Path(target) / f"{folder.name}_v{_checked_version(folder)}.zip"
    checksum = archive.with_name(f"{archive.name}.sha256")
    if archive.parent.exists() and not archive.parent.is_dir():  # before the work, not after it
        raise InputError(f"--target {target} is a file; give a folder")
    for path in (archive, checksum):
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists; give --overwrite to replace it, or another --target")
    sources = {"bundle": folder, "weights": weights, "dataset_dir": dataset_dir}
    for path in (archive, checksum):
        refuse_overlap(sources=sources, targets={"target": path})
    refuse_foreign((archive, checksum))
    files = packed_files(folder, weights=weights, overrides=overrides or {}, dataset_dir=dataset_dir)
    data = _zipped({f"{folder.name}/{path}": content for path, content in files.items()})
    try:
        for path, content in ((archive, data), (checksum, checksum_line(data, archive.name))):
            write_bytes(path, content)
    except OSError as error:
        raise InputError(f"{archive} cannot be written ({error.strerror}); give another --target") from error
    return archive


def _checked_version(folder: Path) -> str:
    """Return the bundle's version; the package that its weights run with must be the one that it requires."""
    metadata = read_json(folder / METADATA)
    wanted = metadata.get("required_packages_version", {}).get("kvseg_monai")
    if wanted != __version__:
        raise InputError(
            f"{folder / METADATA} requires kvseg_monai {wanted}, but {__version__} is installed; install the version "
            f"that the bundle requires, or put its weights into the bundle of this one: {command_to_repack(folder)}"
        )
    return metadata["version"]


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """Return a zip without compression, names sorted and dates fixed: the bytes depend on the contents alone."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name)  # dated 1980, where zip's calendar starts
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # Unix; readable by all
            writer.writestr(entry, content)
    return archive.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, pack, say how the zip is taken."""
    parser = argparse.ArgumentParser(
        prog=program("kvseg_monai.pack"),
        description="Make a zip of a bundle with trained weights.",
        epilog="Any other option is an override, as in monai.bundle run: --network_def#size tiny. Give those that "
        "the weights were trained with.",
        allow_abbrev=False,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle's folder, or its name in bundles/")
    parser.add_argument("--weights", required=True, metavar="FILE", help="trained weights, .pt or .safetensors")
    parser.add_argument("--target", required=True, metavar="DIR", help="folder for the zip and its sha256")
    parser.add_argument("--dataset_dir", metavar="DIR", help="training data: its datalist.json names the classes")
    parser.add_argument("--overwrite", action="store_true", help="replace a zip that is there")
    options = vars(parse_with_overrides(parser, sys.argv[1:] if arguments is None else arguments))
    archive = pack(options.pop("bundle"), options.pop("target"), **options)
    name, url = archive.name.rpartition("_v")[0], archive.resolve().as_uri()
    print(f"wrote {archive}")
    print(f"sha256 {archive.with_name(archive.name + '.sha256').read_text().split()[0]}")
    print(f"unpack: python -m monai.bundle download {name} --source github --url {url} --bundle_dir DIR")
    return 0
