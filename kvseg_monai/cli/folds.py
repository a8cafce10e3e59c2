"""``kvseg train BUNDLE --folds K``: train each fold, score what it held out, join the scores.

Each training and evaluation is a plain line, ``python -m monai.bundle run ... --folds K --fold k``, printed and run in
a process of its own. ``folds.json`` beside the weights says what they are of, and which folds are done: the same
command goes on where it was interrupted.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from kvseg_monai.bundle.find import EVALUATE, INFERENCE, TRAIN, find_bundle
from kvseg_monai.cli import plain
from kvseg_monai.cli.fitting import fitting_words
from kvseg_monai.cli.fold_job import STATE, Job
from kvseg_monai.cli.workflows import RUNNER, parse_words, runner_words
from kvseg_monai.data.folds import check_folds, split_folds
from kvseg_monai.errors import InputError
from kvseg_monai.handlers.sample_logits import SAMPLE
from kvseg_monai.metrics.calibration import HOTTEST
from kvseg_monai.metrics.summary import FILES
from kvseg_monai.study.out_of_fold import WRITTEN, join_folds
from kvseg_monai.utils.files import refuse_foreign
from kvseg_monai.utils.flags import PLACES
from kvseg_monai.utils.model_files import BEST, RECORD, read_record
from kvseg_monai.utils.overlap import refuse_overlap
from kvseg_monai.utils.run_options import RUN_OPTIONS, config_files, read_mapping, read_options
from kvseg_monai.utils.run_record import hash_file

OF_A_FOLD = ("ckpt_dir", "output_dir", "fold", "resume")  # set here for each
# What may be another when a training goes on: where things are, and how fast they are read.
MAY_CHANGE = (
    *(*PLACES, *RUN_OPTIONS, "resume", "device", "num_workers", "cache_rate", "cache_dir", "gpu_share"),
    *("log_interval", "slices_at_once"),
)
NOT_TO_SEGMENT = (*PLACES, "seed", "folds", "holdout", "section")


def train_folds(words: Sequence[str]) -> int:
    """Train and score all folds that are not done, write the joined scores, print them; return the exit code.

    Raises:
        InputError: what is wrong with the options or the data, or weights of another training that are in the place.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("torchrun starts one training on several devices; name its fold by --fold")
    job = _open(words)
    job.refuse_other_training()
    _line(job, EVALUATE, 0)  # what cannot be scored is refused before it is trained
    codes = [_make(job, fold) for fold in range(job.folds)]
    summary = join_folds([job.output(fold) for fold in range(job.folds)], job.output_dir)
    print(_describe(job, summary), flush=True)
    return max(codes)


def _open(words: Sequence[str]) -> Job:
    """Read the command line, and the configuration that it makes."""
    line = runner_words(TRAIN, words)
    bundle, overlays, options = parse_words(TRAIN, words)
    given = read_options(line)
    files = config_files(given)
    parser = ConfigParser()
    parser.read_config(files)
    parser.update({name: value for name, value in given.items() if name not in RUN_OPTIONS})
    names = ("dataset_dir", "base_dir", "ckpt_dir", "output_dir", "seed", "folds", "max_steps", "max_epochs")
    found = {name: parser.get_parsed_content(name) for name in names}
    folds = found["folds"]
    check_folds(folds, 0)
    ckpt_dir, output_dir = Path(found["ckpt_dir"]), Path(found["output_dir"])
    sources = {name: found[name] for name in ("dataset_dir", "base_dir")}
    refuse_overlap(sources=sources, targets={"ckpt_dir": ckpt_dir, "output_dir": output_dir})
    refuse_foreign([ckpt_dir / STATE, *(output_dir / name for name in WRITTEN)])
    dealt = split_folds(found["dataset_dir"], folds, seed=found["seed"], base_dir=found["base_dir"])
    identity = {
        "folds": folds,
        "options": {name: str(value) for name, value in sorted(given.items()) if name not in MAY_CHANGE},
        "configuration": {file.name: hash_file(file) for file in files},
        "patients": hashlib.sha256(json.dumps(sorted(dealt.items())).encode()).hexdigest()[:16],  # nobody's name
    }
    longest = {"steps": found["max_steps"], "epochs": found["max_epochs"]}
    return Job(bundle, overlays, options, folds, ckpt_dir, output_dir, identity, longest)


def _make(job: Job, fold: int) -> int:
    """Train and score one fold, as far as it is not done; return the exit code of the scoring, 0 or 2.

    Raises:
        SystemExit: with the exit code of what broke.
    """
    trained = fold in job.done["trained"] or _is_trained(job, fold)
    if not (trained and (job.weights(fold) / BEST).is_file()):
        job.done = {stage: [other for other in folds if other != fold] for stage, folds in job.done.items()}
        job.save()  # before anything of the fold is there
        code = _run(_line(job, TRAIN, fold, resume="true"))
        if code:
            raise SystemExit(code)
    job.enter("trained", fold)
    scores = job.output(fold) / FILES[0]
    if fold in job.done["scored"] and scores.is_file() and (job.output(fold) / SAMPLE).is_file():
        return 0
    before = scores.stat().st_mtime_ns if scores.is_file() else None
    code = _run(_line(job, EVALUATE, fold, calibration="true"))
    scored = scores.is_file() and scores.stat().st_mtime_ns != before
    if code and not (code == 2 and scored):  # 2 with scores: cases were refused, and the others are scored
        raise SystemExit(code)
    job.enter("scored", fold)
    return code


def _is_trained(job: Job, fold: int) -> bool:
    """Return whether a training came to its end, by its own record: it may be killed before ours is written."""
    record = read_record(job.weights(fold) / RECORD)
    unit = "steps" if job.longest["steps"] is not None else "epochs"
    return bool(record) and record.get(unit, 0) >= job.longest[unit]


def _line(job: Job, configuration: str, fold: int, **further: str) -> list[str]:
    """Return the plain line of a fold, of the options those that the configuration has."""
    places = {"ckpt_dir": str(job.weights(fold)), "output_dir": str(job.output(fold)), "fold": str(fold)}
    overlays, options = fitting_words(configuration, job.bundle, job.overlays, job.options, without=OF_A_FOLD)
    own = [word for name, value in {**places, **further}.items() for word in (f"--{name}", value)]
    return runner_words(configuration, [job.bundle, *overlays, *options, *own])


def _run(line: Sequence[str]) -> int:
    print(plain.show(RUNNER, line), flush=True)
    return plain.run_and_wait(RUNNER, line)


def _describe(job: Job, summary: Mapping[str, Any]) -> str:
    """Return the scores, and how the weights of all folds are used, as text."""
    dice, calibration = summary["folds"]["intervals"]["dice"], summary["calibration"]
    before, after = (calibration[when]["expected_calibration_error"] for when in ("before", "after"))
    inference = _infer_line(job, calibration["temperature"])
    bound = (
        " (the largest that is tried: the network knows little yet)"
        if calibration["temperature"] > 0.99 * HOTTEST
        else ""
    )
    return "\n".join(
        [
            "",
            f"out of fold: {len(summary['cases'])} cases of {dice['patients']} patients, Dice {_number(dice['mean'])}, "
            f"95 % interval {_number(dice['low'])} to {_number(dice['high'])} over patients",
            *(
                f"fold {of['fold']}: {of['cases']} cases of {of['patients']} patients, "
                f"Dice {_number(of['mean']['dice'])}"
                for of in summary["folds"]["folds"]
            ),
            f"expected calibration error: {before:.4f}, with the temperature of the other folds {after:.4f}; the "
            f"temperature of all is {calibration['temperature']:.3f}{bound}",
            f"written to {job.output_dir}: {', '.join(WRITTEN)}; a page of it:",
            f"  {shlex.join(['kvseg', 'report', '--evaluation', str(job.output_dir), '--target', 'folds.html'])}",
            "to segment with the weights of all folds (the mean of their probabilities):",
            f"  {inference}",
        ]
    )


def _infer_line(job: Job, temperature: float) -> str:
    """Return the command that segments with all weights, with the options that they were trained with."""
    overlays, options = fitting_words(INFERENCE, job.bundle, job.overlays, job.options, without=NOT_TO_SEGMENT)
    weights = "[" + ",".join(repr(str(job.weights(fold) / BEST)) for fold in range(job.folds)) + "]"
    known = read_mapping(find_bundle(job.bundle) / INFERENCE)
    warmth = ["--temperature", f"{temperature:.3f}"] if "temperature" in known else []
    words = ["kvseg", "infer", job.bundle, *overlays, "--ckpt_path", weights, *warmth, *options]
    return " ".join(map(_quoted, [*words, "--dataset_dir", "SCANS"]))


def _quoted(word: str) -> str:
    """Quote a word for a shell; a list of texts in double quotes, which can be read."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
