"""The study file, unfolded into arms: an arm is a net, an attention kind and a seed."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from kvseg_monai.blocks import ATTENTION_KINDS
from kvseg_monai.errors import InputError
from kvseg_monai.study.checks import check_overrides, read_mapping, read_split, refuse_unknown, require_table
from kvseg_monai.utils.old_names import current_options

STUDY_KEYS = (
    *("dataset_dir", "split", "output_dir", "bundles_dir", "notice"),
    *("overrides", "nets", "seeds", "reference", "margin"),
)
NET_KEYS = ("attention", "overrides", "network", "bundle")
BUNDLES = Path(__file__).parents[2] / "bundles"  # beside the package, as in the repository
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


def read_study(path: str | Path, *, dataset_dir: str | None = None, output_dir: str | None = None) -> Study:
    """Read a study file. Paths in it are relative to it; the two arguments take the place of its entries.

    Raises:
        InputError: for a missing file, an unknown or missing key, or a value that is not allowed.
    """
    path = Path(path)
    found = read_mapping(path)
    refuse_unknown(found, STUDY_KEYS, path)
    for key in ("split", "nets", "seeds"):
        if not found.get(key):
            raise InputError(f"{path} has no '{key}'; a study needs split, nets and seeds")
    bundles = path.parent / found["bundles_dir"] if found.get("bundles_dir") else BUNDLES
    output = _folder(path, output_dir, found.get("output_dir"))
    if output is None:
        raise InputError(f"{path} has no 'output_dir'; add it, relative to the file, or give --output_dir")
    reference = found.get("reference", "qkv")
    refuse_unknown([reference], ATTENTION_KINDS, f"{path}, reference")
    return Study(
        dataset_dir=_folder(path, dataset_dir, found.get("dataset_dir")),
        output_dir=output,
        bundles_dir=bundles.resolve(),
        split=read_split(path.parent / str(found["split"])),
        arms=_Unfolding(path, found, bundles.resolve(), reference).arms(),
        reference=reference,
        margin=_margin(path, found.get("margin", 0.01)),
        notice=found.get("notice") and str(found["notice"]),
    )


def _folder(path: Path, given: str | None, found: Any) -> Path | None:
    if given:
        return Path(given).resolve()
    return (path.parent / str(found)).resolve() if found else None


def _margin(path: Path, margin: Any) -> float:
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 < margin < 1:
        raise InputError(f"{path}: margin is {margin!r}; it must be a Jaccard difference between 0 and 1, such as 0.01")
    return float(margin)


@dataclass(frozen=True)
class _Unfolding:
    """The content of a study file on its way to the arms."""

    path: Path
    found: Mapping[str, Any]
    bundles: Path
    reference: str

    def arms(self) -> list[Arm]:
        """Return all arms, seed after seed: the first seed of all nets can be compared before the others are done."""
        nets = require_table(self.found["nets"], f"{self.path}, nets")
        rows = [row for net, settings in nets.items() for row in self._rows_of_net(str(net), settings)]
        return [
            Arm(net, kind, seed, bundle, overrides) for seed in self._seeds() for net, kind, bundle, overrides in rows
        ]

    def _seeds(self) -> list[int]:
        seeds = self.found["seeds"]
        if not isinstance(seeds, list) or any(type(s) is not int or s < 0 for s in seeds) or len({*seeds}) < len(seeds):
            raise InputError(
                f"{self.path}: seeds is {seeds!r}; give different whole numbers from 0 on, such as [0, 1, 2]"
            )
        return seeds

    def _rows_of_net(self, net: str, settings: Any) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
        """Yield net, attention, bundle and overrides."""
        where = f"{self.path}, nets, {net}"
        settings = require_table(settings, where)
        refuse_unknown(settings, NET_KEYS, where)
        tables = ((self.found, f"{self.path}, overrides"), (settings, f"{where}, overrides"))
        overrides = {
            key: value for table, of in tables for key, value in require_table(table.get("overrides"), of).items()
        }
        network = require_table(settings.get("network"), f"{where}, network") or None
        for kind in self._kinds(settings, where):
            bundle = self._bundle(net, kind, settings.get("bundle"), where)
            overrides = current_options(overrides, read_mapping(self.bundles / bundle / "configs" / "train.json"))
            check_overrides(overrides, network, self.bundles / bundle, f"{where}, overrides")
            if network:  # before the overrides, which may be of its arguments
                yield (
                    net,
                    kind,
                    bundle,
                    {"network_def": {"in_channels": "$len(@slice_offsets)", **network}, **overrides},
                )
            else:
                yield net, kind, bundle, {**overrides, "network_def#attention": kind}

    def _kinds(self, settings: Mapping[str, Any], where: str) -> list[str]:
        if "network" in settings:
            if not settings.get("bundle") or "attention" in settings:
                raise InputError(f"{where}: beside a 'network' name the 'bundle' that trains it, and no 'attention'")
            return [OWN_ATTENTION]
        kinds = settings.get("attention") or []
        refuse_unknown(kinds, ATTENTION_KINDS, f"{where}, attention")
        if self.reference not in kinds:
            raise InputError(
                f"{where}: attention is {kinds}; it must hold {self.reference}, the reference of the others"
            )
        return list(kinds)

    def _bundle(self, net: str, kind: str, given: str | None, where: str) -> str:
        """Return the name of the bundle: that of net and kind, or of the net's reference where there is none."""
        for name in [given] if given else [f"{net}_{name}_segmentation" for name in (kind, self.reference)]:
            if (self.bundles / str(name) / "configs" / "train.json").is_file():
                return str(name)
        there = sorted(folder.name for folder in self.bundles.glob("*_segmentation"))
        raise InputError(
            f"{where}: {self.bundles} has no bundle of {given or net!r}, only: {', '.join(there) or 'none'}"
        )


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
