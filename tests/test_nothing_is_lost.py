"""No command loses a file of the user's: each is given folders full of them, and its own source as the target.

The commands are taken from the source tree; one that has no row in ``ROWS`` fails. All run in this process, as their
command line would run them.
"""

import ast
import contextlib
import gc
import hashlib
import io
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ignite.distributed as idist
import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from dicom_files import write_series
from fire.parser import DefaultParseValue
from label_server import save_weights
from made_evaluation import make_evaluation
from made_study import make_study
from monai.bundle import create_workflow
from monai.networks.nets import UNETR
from PIL import Image
from seg_objects import AXIAL, image, labels
from support import ROOT, config, make_volume
from torch.utils.tensorboard import SummaryWriter

from kvseg_monai.cli.commands import COMMANDS
from kvseg_monai.errors import find_input_error
from kvseg_monai.label import orthanc
from kvseg_monai.utils.files import write_bytes
from kvseg_monai.utils.records import RECORD

BUNDLE = "setr_kv_segmentation"
MINE = b"written by the user\n"
REFUSAL = (
    r"must lie apart|was not written by kvseg_monai|is an input|is the folder of the input|exists; give|"
    r"is there already|is not named as a page|does not end in|cannot be read|is no arm of a study|"
    r"is not from this preparation|holds files|another data set|--target"
)


@dataclass(frozen=True)
class Way:
    """One way to call a command: its line, run in the folder of :func:`world`, with places for source and target.

    ``source`` is what it reads, None where it reads nothing that a target could meet. ``works`` says that it does its
    work where both lie apart; where not, its refusals alone are tested. ``keeps``: what is in the place is renamed to a
    name with its date. ``harmless``: where new files may be written all the same.
    """

    line: str
    source: str | None = None
    target: str = "out"
    overwrite: str = ""
    works: bool = True
    keeps: bool = False
    harmless: tuple[str, ...] = ()


@dataclass(frozen=True)
class Nothing:
    """A command that writes nothing, and why; ``line`` shows it, None where it is too slow or has no line."""

    reason: str
    line: str | None = None


MEETINGS = {  # (the source is a file, the target is a file) -> how they meet
    (False, False): ("same", "within", "around", "linked to it", "link into it", "link from it"),
    (False, True): ("within", "deep within", "replacing ours", "linked to it", "link into it", "link from it"),
    (True, True): ("same", "linked to it", "link into it", "link from it"),
    (True, False): ("around",),
}
TINY = "--network_def#size tiny --image_size [64,64] --spacing [6.0,6.0] --slices_at_once 4"
TRAIN = f"{TINY} --max_epochs 1 --slices_per_volume 1 --cache_rate 0.0"
PREPARED = "--validation-fraction 0.34 --test-fraction 0 --workers 1"
WHERE = f"--bundle {ROOT}/bundles/{BUNDLE}"
MAP = f"--labels large_bowel small_bowel stomach {WHERE}"
PACKED = f"--target {{target}} {TINY}"
ZIPPED = {"overwrite": "--overwrite", "harmless": ("around", "link into it")}
STOCK = "--image_size [64,64]"


def training(options: str = TRAIN, **more) -> list[Way]:
    return [
        Way(f"--dataset_dir {{source}} --output_dir {{target}} --ckpt_dir ckpt {options}", "data", "out", **more),
        Way(f"--dataset_dir {{source}} --output_dir logs --ckpt_dir {{target}} {options}", "data", "out", **more),
    ]


def keeping() -> Way:
    """Training whose volumes lie on disk: in a folder of a new name, which may be anywhere."""
    short = "--cache_rate 1.0 --cases#free_memory '$lambda: 0' --validate#dataset#free_memory '$lambda: 0'"
    line = f"--dataset_dir {{source}} --cache_dir {{target}} --output_dir logs --ckpt_dir ckpt {TRAIN} {short}"
    return Way(line.replace("--cache_rate 0.0 ", ""), "data", "out", keeps=True, harmless=MEETINGS[False, False])


def predicting(source: str = "data", again: str = "") -> list[Way]:
    line = f"--dataset_dir {{source}} --ckpt_path weights.pt {TINY}"
    return [
        Way(f"{line} --output_dir {{target}}", source, "out", again),
        Way(f"{line} --output_dir scores --prediction_dir {{target}}", source, "out", again),
    ]


def preparing(line: str, source: str) -> list[Way]:
    return [Way(f"--source {{source}} --target {{target}} {line}", source, "out", "--overwrite")]


MASKS = "--labels 0=background,1=bowel --patient '(p[0-9]+)'"
ROWS: dict[str, list[Way] | Nothing] = {
    "data_prep.benchmark": Nothing(
        "it prepares into temporary folders",
        f"nifti --rounds 1 --workers 1 --source nifti {MASKS}",
    ),
    "data_prep.dicom": preparing(PREPARED.replace("0.34", "0"), "dicom"),
    "data_prep.nifti": preparing(f"{MASKS} {PREPARED}", "nifti"),
    "data_prep.phantom": [Way("--scans 1 --slices 1 --workers 1 --target {target}", None, "out", "--overwrite")],
    "data_prep.png_pairs": preparing(f"{MASKS} --spacing 1.5 --slice-gap 3 {PREPARED}", "png"),
    "data_prep.uw_madison": preparing("--workers 1", "raw"),
    "kvseg_monai": [Way("bundles copy setr_kv {target}")],
    "kvseg_monai.benchmark": Nothing("it measures", f"{WHERE} --dataset_dir data --epochs 1 --image_size 64"),
    "kvseg_monai.complexity": Nothing(
        "it prints; --readme changes what stands between two markers (tests/test_complexity.py)",
        "--nets SETR --readme notes.txt",
    ),
    "kvseg_monai.convert": [
        Way("--config_file {source} --weights unetr.pt --target {target}", "unetr.json", "kv.pt", "--overwrite"),
        Way("--config_file unetr.json --weights {source} --target {target}", "unetr.pt", "kv.pt", "--overwrite"),
    ],
    "kvseg_monai.curves": [
        Way("--runs a={source} --target {target}", "run", "out.png"),
        Way("--runs a={source} --target curves.png --csv {target}", "run", "out.csv"),
    ],
    "kvseg_monai.deploy": [
        Way("{target} --weights {source}", "weights.pt", "bundle", keeps=True, harmless=("around",))
    ],
    "kvseg_monai.dicom.isolated": Nothing("it answers on its standard output"),
    "kvseg_monai.dicom_seg": [
        Way(f"--prediction {{source}} --series dicom --target {{target}} {MAP}", "map.nii.gz", "a.dcm", "--overwrite"),
        Way(f"--prediction map.nii.gz --series {{source}} --target {{target}} {MAP}", "dicom", "a.dcm", "--overwrite"),
    ],
    "kvseg_monai.label": [
        Way("--studies {source} --target {target} --port 0", "data", works=False),
        Way("--studies nifti --dataset_dir {source} --target {target} --port 0", "data", works=False),
    ],
    "kvseg_monai.label.orthanc": [Way("--target {target}")],
    "kvseg_monai.pack": [  # into a folder its two files go, which may hold all else
        Way(f"{ROOT}/bundles/{BUNDLE} --weights {{source}} {PACKED}", "weights.pt", **ZIPPED),
        Way(f"{{source}} --weights weights.pt {PACKED}", BUNDLE, **ZIPPED),
        Way(f"{ROOT}/bundles/{BUNDLE} --weights weights.pt --dataset_dir {{source}} {PACKED}", "data", **ZIPPED),
    ],
    "kvseg_monai.plan": [  # beside the datalist is its own place
        Way("{source} --target {target}", "data", "out.json", harmless=("within", "deep within", "link into it")),
    ],
    "kvseg_monai.report": [
        Way("--evaluation {source} --target {target}", "evaluation", "out.html"),
        Way("--evaluation evaluation --predictions {source} --target {target}", "data", "out.html"),
        Way("--evaluation evaluation --training {source} --target {target}", "run", "out.html"),
    ],
    "kvseg_monai.study": [
        Way("run study.yaml --dataset_dir {source} --output_dir {target}", "data", "out"),
        Way("run study.yaml --redo --dataset_dir {source} --output_dir {target}", "data", "out", works=False),
        Way("report reported/study.yaml --output_dir {target}", target="reported/out"),
        Way("report {source} --output_dir apart --html {target}", "study.yaml", "out.html", works=False),
    ],
    "kvseg_monai.study.arm": [
        Way(f"--dataset_dir {{source}} --base_dir {{source}} --folder {{target}} {WHERE}", "data", "out", works=False),
    ],
    "bundle train": [*training(keeps=True), keeping()],
    "bundle train,multi_gpu_train": training(keeps=True),
    "bundle evaluate": predicting(),
    "bundle inference": predicting(again="--overwrite true"),
    "bundle inference,dicom_seg": predicting(again="--overwrite true", source="scans"),
    "bundle train,from_weights": training(works=False),
    "bundle train,unetr": training(STOCK, works=False),
    "bundle train,unetr,kv": training(STOCK, works=False),
    "bundle train,unetr,kv,kv_from_weights": training(STOCK, works=False),
    "bundle train,swin_unetr": training(STOCK, works=False),
}

# The commands of kvseg: the row of what each runs.
KVSEG = {
    **{name: f"kvseg_monai.{name}" for name in ("benchmark", "convert", "deploy", "label", "pack", "plan")},
    **{name: f"kvseg_monai.{name}" for name in ("report", "study")},
    **{f"prepare {kind}": f"data_prep.{kind}" for kind in ("dicom", "nifti", "png_pairs", "uw_madison")},
    **{"phantom": "data_prep.phantom", "cost": "kvseg_monai.complexity", "bundles": "kvseg_monai"},
    **{"train": "bundle train", "evaluate": "bundle evaluate", "infer": "bundle inference"},
    "demo": "bundle train",  # first of the lines that it runs, of which each has a row (tests/cli/test_demo.py)
}


def test_every_command_of_kvseg_runs_what_has_a_row():
    assert COMMANDS.keys() == KVSEG.keys()
    assert set(KVSEG.values()) <= ROWS.keys()


def commands() -> Iterator[str]:
    """Yield the modules that run as programs, and the configurations of the bundles and those laid over them."""
    for file in (*(ROOT / "kvseg_monai").rglob("*.py"), *(ROOT / "data_prep").rglob("*.py")):
        if file.name == "__main__.py" or any(map(_is_guard, ast.parse(file.read_text("utf-8")).body)):
            yield ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    yield from (path.stem for path in (ROOT / "bundles").glob("*_segmentation/configs/*.json"))
    yield from (path.stem for path in (ROOT / "bundles" / "examples").glob("*.json"))


def _is_guard(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test)


def test_every_command_has_a_row():
    known = {"metadata"}  # no workflow
    for name in ROWS:
        known |= set(name.removeprefix("bundle ").split(","))
    found = set(commands())
    assert found - known == set(), "give each a row: how it is called, or why it writes nothing"
    assert known - found == set(), "rows of commands that are no more"


# ---------------------------------------------------------------------------------------------------------- the world


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with all that the commands read: prepared data that we wrote, originals, weights, an evaluation."""
    folder = tmp_path_factory.mktemp("world")
    call("data_prep.phantom", ["--target", "raw", "--scans", "4", "--slices", "3", "--workers", "1"], folder)
    fractions = ["--validation-fraction", "0.34", "--test-fraction", "0.34"]
    call("data_prep.uw_madison", ["--source", "raw", "--target", "data", "--workers", "1", *fractions], folder)
    make_originals(folder)
    make_evaluation(folder / "evaluation")
    write_series(folder / "dicom", image(), AXIAL)
    write_series(folder / "scans", make_volume(0)[0], AXIAL)
    nib.save(nib.Nifti1Image(labels(), AXIAL), folder / "map.nii.gz")
    with SummaryWriter(str(folder / "run")) as writer:
        writer.add_scalar("val_mean_dice", 0.5, 1)
    make_networks(folder)
    plan_study(folder)
    (folder / "reported").mkdir()
    make_study(folder / "reported", nets=("setr",), seeds=1, patients=6)
    for path in (folder / "notes.txt", folder / "data" / "notes.txt", folder / "raw" / "notes.txt"):
        path.write_bytes(MINE)
    return folder


def make_originals(folder: Path) -> None:
    """Images and masks of three patients, as NIfTI and as PNG, one mask with a value that has no name."""
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 255, (12, 10, 3)).astype(np.int16)
        mask = (pixels > 100).astype(np.uint8)
        for kind, array in (("images", pixels), ("labels", mask)):
            path = folder / "nifti" / kind / f"p{number}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, AXIAL), path)
        for kind, array in (("images", pixels), ("masks", mask)):
            path = folder / "png" / kind / f"p{number}_scan_1.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array[..., 0].astype(np.uint8)).save(path)


def make_networks(folder: Path) -> None:
    """Weights, bundles whose networks are tiny, and a stock network with its weights."""
    save_weights(BUNDLE, folder / "weights.pt")
    for name in ("bundle", BUNDLE):
        shutil.copytree(ROOT / "bundles" / BUNDLE, folder / name, ignore=shutil.ignore_patterns("models", "eval"))
    inference = folder / "bundle" / "configs" / "inference.json"
    tiny = json.loads(inference.read_text())
    tiny["network_def"]["size"], tiny["image_size"] = "tiny", [64, 64]
    inference.write_text(json.dumps(tiny))
    sizes = {"img_size": 32, "feature_size": 4, "hidden_size": 24, "mlp_dim": 24, "num_heads": 3}
    arguments = {"in_channels": 1, "out_channels": 2, "spatial_dims": 2, **sizes}
    (folder / "unetr.json").write_text(json.dumps({"network_def": {"_target_": "UNETR", **arguments}}))
    torch.save(UNETR(**arguments).state_dict(), folder / "unetr.pt")


def plan_study(folder: Path) -> None:
    """A study of one arm that nobody has run."""
    datalist = json.loads((folder / "data" / "datalist.json").read_text())
    sections = ("training", "validation", "test")
    split = {name: list(dict.fromkeys(entry["patient"] for entry in datalist[name])) for name in sections}
    (folder / "split.json").write_text(json.dumps(split))
    options = {"max_epochs": 1, "image_size": [64, 64], "spacing": [6.0, 6.0], "slices_per_volume": 1}
    net = {"attention": ["qkv"], "overrides": {"network_def#size": "tiny"}}
    content = {"split": "split.json", "nets": {"setr": net}, "seeds": [0], "overrides": options}
    (folder / "study.yaml").write_text(yaml.safe_dump({**content, "dataset_dir": "data", "output_dir": "made"}))


# --------------------------------------------------------------------------------------------------------- the running


def call(command: str, arguments: list[str], folder: Path) -> tuple[int, str]:
    """Run a command in a folder; return the exit code and what it reported as a mistake. A defect is raised."""
    arguments = list(map(str, arguments))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [command, *arguments])
        try:
            if command.startswith("bundle "):
                run_bundle(command.removeprefix("bundle ").split(","), arguments)
            elif command == "kvseg_monai.label.orthanc":  # which is not installed everywhere: what it writes
                orthanc.configure(Path(arguments[1]).resolve(), port=8042)
            else:
                return run_module(command)
        except Exception as error:
            mistake = find_input_error(error)
            if mistake is None and not isinstance(error, OSError):
                raise
            return 2, str(mistake or error)
    return 0, ""


def run_module(command: str) -> tuple[int, str]:
    """Do what ``python -m`` does."""
    handler = signal.getsignal(signal.SIGTERM)
    reported = io.StringIO()
    try:
        with contextlib.redirect_stderr(reported):
            runpy.run_module(command, run_name="__main__", alter_sys=True)
    except SystemExit as leaving:
        return int(leaving.code or 0), reported.getvalue()
    finally:
        signal.signal(signal.SIGTERM, handler)
    raise AssertionError(f"{command} does not leave by run_command")


def run_bundle(names: list[str], arguments: list[str]) -> None:
    """Do what ``python -m monai.bundle run`` does."""
    overrides = dict(zip((name[2:] for name in arguments[::2]), map(DefaultParseValue, arguments[1::2]), strict=True))
    own = ("train", "evaluate", "inference", "multi_gpu_train")
    files = [config(BUNDLE, n) if n in own else str(ROOT / "bundles" / "examples" / f"{n}.json") for n in names]
    kind = "train" if names[0] == "train" else "inference"
    with pytest.MonkeyPatch.context() as patch, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
        for name, value in place.items() if "multi_gpu_train" in names else ():
            patch.setenv(name, str(value))
        probe.close()
        try:
            made = create_workflow(config_file=files, workflow_type=kind, bundle_root="root", **overrides)
            made.run()
            del made
            gc.collect()  # what ends with a process, ends
        finally:
            if torch.distributed.is_initialized():
                idist.finalize()  # as the configuration does, and ignite forgets it as well
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


def tree(folder: Path) -> dict[str, str]:
    """All that is below a folder, links not followed: path -> content; without our records, which say what is ours."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if name == RECORD:
                continue
            if path.is_symlink():
                found[str(path.relative_to(folder))] = f"link to {os.readlink(path)}"
            elif path.is_dir():
                found[str(path.relative_to(folder))] = "folder"
            else:
                found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def lost(before: dict[str, str], after: dict[str, str], *, keeps: bool = False) -> list[str]:
    """What is gone or changed; where a command ``keeps`` files, their content may have another name."""
    kept = set(after.values()) if keeps else set()
    return [path for path, content in before.items() if after.get(path) != content and content not in kept]


def line_of(way: Way, source: Path | str | None, target: Path | str, overwrite: bool = False) -> list[str]:
    line = way.line.format(source=source, target=target) + (f" {way.overwrite}" if overwrite else "")
    return shlex.split(line)


# ----------------------------------------------------------------------------------------------------------- the tests


WAYS = [
    pytest.param(name, way, id=f"{name}-{number}")
    for name, row in ROWS.items()
    if isinstance(row, list)
    for number, way in enumerate(row)
]


@pytest.fixture
def copy(world, tmp_path) -> Path:
    shutil.copytree(world, tmp_path / "world", symlinks=True)
    return tmp_path / "world"


@pytest.fixture(scope="module")
def made(world, tmp_path_factory) -> Callable[[str, Way], Path]:
    """Give the world in which a command has done its work, source and target apart; each is made once."""
    done: dict[tuple[str, Way], Path] = {}

    def make(name: str, way: Way) -> Path:
        if (name, way) not in done:
            folder = tmp_path_factory.mktemp("made") / "world"
            shutil.copytree(world, folder, symlinks=True)
            before = tree(folder)
            code, reported = call(name, line_of(way, way.source, way.target), folder)
            assert code == 0, reported
            assert not lost(before, tree(folder))
            done[name, way] = folder
        return done[name, way]

    return make


def written(world: Path, folder: Path) -> list[str]:
    """The files that a command wrote, as it did its work."""
    before = tree(world)
    return [path for path, content in tree(folder).items() if path not in before and content != "folder"]


MET = [
    pytest.param(param.values[0], param.values[1], how, id=f"{param.id}-{how}")
    for param in WAYS
    if param.values[1].source
    for how in MEETINGS[bool(Path(param.values[1].source).suffix), bool(Path(param.values[1].target).suffix)]
]


def meet(folder: Path, way: Way, how: str) -> tuple[Path, Path]:
    """Lay source and target so that they meet; return both, relative to the folder."""
    source, target = Path(way.source), Path("apart", way.target)
    (folder / "apart").mkdir()
    if (folder / source).is_file():
        return meet_a_file(folder, source, target, how)
    if how == "around":
        (folder / source).rename(folder / "apart" / source.name)
        return "apart" / source, Path("apart")
    if how == "linked to it":
        inside = next(path for path in sorted((folder / source).rglob("*")) if path.is_file())
        (folder / target).symlink_to(inside if target.suffix else folder / source)
    elif how == "link into it" and target.suffix:
        (folder / "apart" / "link").symlink_to(folder / source)
        target = Path("apart", "link", target.name)
    elif how == "link into it":
        (folder / target).mkdir()
        (folder / target / "link").symlink_to(next(path for path in sorted((folder / source).iterdir())))
    elif how == "link from it":
        write_bytes(folder / target, b"ours") if target.suffix else (folder / target).mkdir()
        (folder / source / "link").symlink_to(folder / target)
    elif how == "replacing ours":
        target = Path(write_bytes(folder / source / target.name, b"ours")).relative_to(folder)
    else:
        parts = {"same": (), "within": ("new",), "deep within": ("new", "new")}[how]
        target = source.joinpath(*parts[:-1], target.name) if target.suffix else source.joinpath(*parts)
    return source, target


def meet_a_file(folder: Path, source: Path, target: Path, how: str) -> tuple[Path, Path]:
    if how == "around":
        (folder / source).rename(folder / "apart" / source.name)
        return Path("apart", source.name), Path("apart")
    if how == "linked to it":
        (folder / target).symlink_to(folder / source)
    elif how == "link into it":
        (folder / "apart" / "link").symlink_to(folder)
        target = Path("apart", "link", source.name)
    elif how == "link from it":
        write_bytes(folder / target, (folder / source).read_bytes())
        (folder / source).unlink()
        (folder / source).symlink_to(folder / target)
    else:
        target = source
    return source, target


@pytest.mark.filterwarnings("ignore::RuntimeWarning:runpy")
class TestNothingIsLost:
    """Each way of each command."""

    @pytest.mark.parametrize(("name", "way"), [param for param in WAYS if param.values[1].works])
    def test_where_all_names_are_taken(self, name, way, world, made, copy):
        """Each file that the command would write is there already, and the user's."""
        names = written(world, made(name, way))
        assert names
        for path in map(copy.joinpath, names):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(MINE)
        before = tree(copy)
        for overwrite in (False, True) if way.overwrite else (False,):
            _, reported = call(name, line_of(way, way.source, way.target, overwrite), copy)
            assert not lost(before, tree(copy), keeps=way.keeps), reported

    @pytest.mark.parametrize(("name", "way"), [param for param in WAYS if param.values[1].works])
    def test_where_all_that_was_written_was_changed_since(self, name, way, world, made, copy):
        """As by a person who corrects label maps; and with further files in each folder that was written into."""
        shutil.rmtree(copy)
        shutil.copytree(made(name, way), copy, symlinks=True)
        for path in map(copy.joinpath, written(world, copy)):
            path.write_bytes(path.read_bytes() + MINE)
            (path.parent / "notes of mine.txt").write_bytes(MINE)
            (path.parent / ".hidden").write_bytes(MINE)
        before = tree(copy)
        for overwrite in (False, True) if way.overwrite else (False,):
            _, reported = call(name, line_of(way, way.source, way.target, overwrite), copy)
            assert not lost(before, tree(copy), keeps=way.keeps), reported

    @pytest.mark.parametrize(("name", "way", "how"), MET)
    def test_where_source_and_target_meet(self, name, way, how, copy):
        source, target = meet(copy, way, how)
        before = tree(copy)
        for overwrite in (False, True) if way.overwrite else (False,):
            code, reported = call(name, line_of(way, source, target, overwrite), copy)
            assert not lost(before, tree(copy), keeps=way.keeps), reported
            if how not in way.harmless:
                assert (code, tree(copy)) == (2, before), reported
                assert re.search(REFUSAL, reported), reported

    @pytest.mark.parametrize("name", [name for name, row in ROWS.items() if isinstance(row, Nothing) and row.line])
    def test_what_writes_nothing_writes_nothing(self, name, copy):
        before = tree(copy)
        code, reported = call(name, shlex.split(ROWS[name].line), copy)
        assert code in (0, 2), reported
        assert tree(copy) == before
