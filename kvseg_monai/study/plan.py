"""The study file, unfolded into arms: an arm is a net, an attention kind and a seed."""

import difflib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from kvseg_monai.bundle.find import SUFFIX, TRAIN, find_bundle, shipped_folder
from kvseg_monai.errors import InputError
from kvseg_monai.study.checks import check_overrides, read_mapping
from kvseg_monai.study.schema import NetTable, SplitFile, StudyFile, read_table
from kvseg_monai.utils.old_names import current_options

BUNDLES = shipped_folder()
OWN_ATTENTION = "own"  # the attention of a network that is not ours


@dataclass(frozen=True)
class Arm:
    """One training: by which bundle, and with which overrides of its ``train.json`` and ``evaluate.json``."""

    net: str
    attention: str
    seed: int
    bundle: str
    overrides: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Net, attention and seed: the name of the arm's folder, and what ``--arms`` selects by."""
        return f"{self.net}-{self.attention}-{self.seed}"


@dataclass(frozen=True)
class Study:
    """A study file, its paths resolved.

    ``split`` names the patients of each section, ``reference`` is the attention kind that the others are compared
    with, and ``margin`` the difference in Jaccard up to which two arms count as equivalent. ``notice`` is what a
    reader of the scores must know of the data. Without a ``dataset_dir`` nothing can be run, only reported.
    """

    dataset_dir: Path | None
    output_dir: Path
    bundles_dir: Path
    split: Mapping[str, list[str]]
    arms: list[Arm]
    reference: str
    margin: float
    notice: str | None


def read_study(
    path: str | Path, *, dataset_dir: str | None = None, output_dir: str | None = None, split: str | None = None
) -> Study:
    """Read a study file. Paths in it are relative to it; the other arguments take the place of its entries.

    Raises:
        InputError: for a missing file, an unknown or missing key, or a value that is not allowed.
    """
    path = Path(path)
    found = read_table(path, StudyFile)
    bundles = (path.parent / found.bundles_dir if found.bundles_dir else BUNDLES).resolve()
    output = _folder(path, output_dir, found.output_dir)
    if output is None:
        raise InputError(f"{path} has no 'output_dir'; add it, relative to the file, or give --output_dir")
    return Study(
        dataset_dir=_folder(path, dataset_dir, found.dataset_dir),
        output_dir=output,
        bundles_dir=bundles,
        split=read_table(Path(split) if split else path.parent / found.split, SplitFile).model_dump(),
        arms=_unfold(path, found, bundles),
        reference=found.reference,
        margin=found.margin,
        notice=found.notice or None,
    )


def _folder(path: Path, given: str | None, found: str | None) -> Path | None:
    if given:
        return Path(given).resolve()
    return (path.parent / found).resolve() if found else None


def _unfold(path: Path, study: StudyFile, bundles: Path) -> list[Arm]:
    """Return all arms, seed after seed: the first seed of all nets can be compared before the others are done."""
    rows = [
        (net, kind, *_bundle_and_overrides(study, net, kind, bundles, f"{path}, nets, {net}"))
        for net, table in study.nets.items()
        for kind in _kinds(table, study.reference, f"{path}, nets, {net}")
    ]
    return [Arm(net, kind, seed, bundle, overrides) for seed in study.seeds for net, kind, bundle, overrides in rows]


def _kinds(table: NetTable, reference: str, where: str) -> list[str]:
    if table.network is not None:
        return [OWN_ATTENTION]
    kinds = table.attention or []
    if reference not in kinds:
        raise InputError(f"{where}: attention is {kinds}; it must hold {reference}, the reference of the others")
    return kinds


def _bundle_and_overrides(
    study: StudyFile, net: str, kind: str, bundles: Path, where: str
) -> tuple[str, dict[str, Any]]:
    table = study.nets[net]
    bundle = _bundle(net, kind, study, bundles, where)
    known = read_mapping(bundles / bundle / TRAIN)
    overrides = current_options({**study.overrides, **table.overrides}, known)
    check_overrides(overrides, table.network, bundles / bundle, f"{where}, overrides")
    if table.network is None:
        return bundle, {**overrides, "network_def#attention": kind}
    # Before the overrides, which may be of its arguments.
    return bundle, {"network_def": {"in_channels": "$len(@slice_offsets)", **table.network}, **overrides}


def _bundle(net: str, kind: str, study: StudyFile, bundles: Path, where: str) -> str:
    """Return the name of the bundle: that of net and kind, or of the net's reference where there is none."""
    given = study.nets[net].bundle
    for name in [given] if given else [f"{net}_{name}" for name in (kind, study.reference)]:
        with suppress(InputError):
            folder = find_bundle(name, among=bundles, needs=[TRAIN])
            return folder.name if folder.parent == bundles else str(folder)
    there = sorted(folder.name for folder in bundles.glob(f"*{SUFFIX}"))
    raise InputError(f"{where}: {bundles} has no bundle of {given or net!r}, only: {', '.join(there) or 'none'}")


def select(arms: Sequence[Arm], patterns: Sequence[str], shard: tuple[int, int] = (0, 1)) -> list[Arm]:
    """Return the arms whose name fits one of the patterns (all without any), of those every n-th from the i-th on.

    Raises:
        InputError: for a pattern that fits none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(arm.name, pattern) for arm in arms):
            names = [arm.name for arm in arms]
            parts = ("net", "attention", "seed")
            known = "; ".join(f"{p}: {', '.join(dict.fromkeys(str(getattr(arm, p)) for arm in arms))}" for p in parts)
            near = difflib.get_close_matches(pattern, names, 1, 0)[0]
            raise InputError(
                f"--arms: no arm fits '{pattern}'; did you mean '{near}'? An arm is net-attention-seed; {known}"
            )
    chosen = [arm for arm in arms if not patterns or any(fnmatchcase(arm.name, pattern) for pattern in patterns)]
    return chosen[shard[0] :: shard[1]]


def known_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the overrides of what a configuration does not have: a study's are for all workflows."""
    return {key: value for key, value in overrides.items() if key.split("#")[0] in config}
