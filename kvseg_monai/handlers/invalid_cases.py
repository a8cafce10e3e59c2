"""Cases that the input checks refuse: reported all at once before a training, left out of batch work.

``python -m monai.bundle run`` ends with exit code 2 where a case was refused, also where the others were finished.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.data import Dataset
from monai.transforms import Compose
from tqdm.auto import tqdm

from kvseg_monai.data.dataset import Case, cases
from kvseg_monai.data.folds import cases_of_fold, check_folds
from kvseg_monai.data.prepared import PreparedCases, VolumeKeeper
from kvseg_monai.data.volume_store import StoreError, VolumeStore
from kvseg_monai.errors import InputError, OptionError, find_input_error
from kvseg_monai.utils.cpu import hand_back_freed_memory
from kvseg_monai.utils.flags import as_flag
from kvseg_monai.utils.memory import free_memory
from kvseg_monai.utils.old_names import METHODS

logger = logging.getLogger(__name__)

REFUSED = "refused"
TRAINING = "training"


class GuardedDataset(Dataset):
    """MONAI's dataset in which a case that a transform refuses is ``{"refused": sentence}``, so that others go on."""

    def __getitem__(self, index: int) -> Any:
        """Return the case, prepared, or the sentence that says why not."""
        try:
            return super().__getitem__(index)
        except Exception as error:
            return {REFUSED: _sentence(error)}


class SkipBadCases:
    """Handler, and ``iteration_update``, of a MONAI evaluator that goes on with the next case where one is refused.

    A case counts as refused when :class:`GuardedDataset` says so, or when the evaluator's iteration, postprocessing
    included, raises an :class:`InputError`. Then the batch and the output are empty lists. The sentences are logged as
    they come, kept in ``engine.state.refused``, and reported at the end by :meth:`report`.
    """

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.cases = 0

    def attach(self, engine: Engine) -> None:
        """Forget an earlier run on ``STARTED``."""
        engine.add_event_handler(Events.STARTED, self._start)

    def _start(self, engine: Engine) -> None:
        self.refused = engine.state.refused = []
        self.cases = 0

    def __call__(self, engine: Engine, batch: dict[str, Any]) -> Any:
        """Do what the evaluator would do with a batch, unless it is refused."""
        self.cases += 1
        sentences = batch.get(REFUSED, [])
        if not sentences:
            try:
                return engine._iteration(engine, batch)  # what MONAI calls where no iteration_update is given
            except Exception as error:
                sentences = [_sentence(error)]
        for sentence in sentences:
            logger.warning("refused: %s", sentence)
        self.refused.extend(sentences)
        engine.state.batch = []
        return []

    def report(self) -> None:
        """Report at the end of a run which cases were refused.

        Raises:
            InputError: with all sentences, where there are any.
        """
        if self.refused:
            done = self.cases - len(self.refused)
            raise InputError(f"{_all_of(self.refused, self.cases)}\n{done} case(s) are finished")

    def __getattr__(self, name: str) -> Any:
        """Return the method that a bundle packed by version 0.1.0 calls by its old name."""
        if name in METHODS:
            return getattr(self, METHODS[name])
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


def valid_cases(
    sections: Mapping[str, Sequence[Case]],
    *,
    transforms: Sequence[Any],
    skip: bool | str = False,
    workers: int = 2,
    prepare: Compose | None = None,
    cache_rate: float = 1.0,
    cache_dir: str | os.PathLike[str] | None = None,
    free_memory: Callable[[], int | None] = free_memory,
) -> dict[str, PreparedCases]:
    """Try to load all cases before a training, and return those that pass the checks.

    Args:
        sections: the cases of training and validation, by name.
        transforms: that load and check a case.
        skip: leave invalid cases out with a warning; else they stop the training. True or false, also as text.
        workers: threads.
        prepare: what the cases of ``training`` go through, from ``transforms`` on. What it makes of them before chance
            enters comes with them, so that no file is read twice. Once a case is refused, the others are only checked.
        cache_rate: share of the cases of ``training`` that are prepared, from the first on.
        cache_dir: folder for what does not fit into memory, see :class:`kvseg_monai.data.VolumeStore`.
        free_memory: says how many bytes are free, see :class:`kvseg_monai.data.VolumeKeeper`.

    Raises:
        InputError: naming every invalid case, or a section of which none is left.
        StoreError: what does not fit into memory does not fit on the disk either.
    """
    skip = as_flag(skip, "skip_bad_cases")
    kept = int(cache_rate * len(sections.get(TRAINING, ())))
    jobs = [
        (case, name == TRAINING and number < kept)
        for name, section in sections.items()
        for number, case in enumerate(section)
    ]
    store, keeper = VolumeStore(cache_dir), None
    if prepare is not None:
        later = int(cache_rate * sum(len(section) for name, section in sections.items() if name != TRAINING))
        chosen = [case for case, wanted in jobs if wanted]
        keeper = VolumeKeeper(prepare, chosen, store=store, expected=kept + later, free_memory=free_memory)
    with ThreadPool(workers) as pool:
        outcomes = pool.imap(_Check(Compose(transforms), keeper, skip), jobs)
        checked = list(tqdm(outcomes, total=len(jobs), desc="checking the cases", unit="case"))
    if store.folder is not None:  # memory is short: what preparing took is for the volumes that are mapped
        hand_back_freed_memory()
    refused = [sentence for sentence, _ in checked if sentence]
    if refused and not skip:
        raise InputError(f"{_all_of(refused, len(jobs))}\ncorrect them, or leave them out by --skip_bad_cases true")
    for sentence in refused:
        logger.warning("left out: %s", sentence)
    verdict = iter(checked)
    valid = {}
    for name, section in sections.items():
        found = zip(section, islice(verdict, len(section)), strict=True)
        passed = [(case, prepared) for case, (sentence, prepared) in found if sentence is None]
        if not passed:
            raise InputError(f"{_all_of(refused, len(jobs))}\nno {name} case is left; correct them")
        valid[name] = PreparedCases([case for case, _ in passed], [prepared for _, prepared in passed], store)
    return valid


def training_cases(
    dataset_dir: str | Path,
    *,
    transforms: Sequence[Any],
    holdout: float = 0.2,
    seed: int = 0,
    folds: int | None = None,
    fold: int | None = None,
    base_dir: str | Path | None = None,
    skip: bool | str = False,
    prepare: Compose | None = None,
    cache_rate: float = 1.0,
    cache_dir: str | os.PathLike[str] | None = None,
    free_memory: Callable[[], int | None] = free_memory,
) -> dict[str, PreparedCases]:
    """Return the cases to train and to validate on that load: see :func:`kvseg_monai.data.cases`, :func:`valid_cases`.

    With ``folds`` and ``fold`` they are those of that fold, see :func:`kvseg_monai.data.cases_of_fold`.

    Raises:
        InputError: as these do.
    """
    check_folds(folds, fold)
    if folds is not None and fold is not None:
        sections = cases_of_fold(dataset_dir, folds=folds, fold=fold, seed=seed, base_dir=base_dir)
    else:
        listed = partial(cases, dataset_dir, holdout=holdout, seed=seed, base_dir=base_dir)
        sections = {section: listed(section) for section in (TRAINING, "validation")}
    return valid_cases(
        sections,
        transforms=transforms,
        skip=skip,
        prepare=prepare,
        cache_rate=cache_rate,
        cache_dir=cache_dir,
        free_memory=free_memory,
    )


def require_cases(training: Sequence[Case], validation: Sequence[Case]) -> None:
    """Refuse a training without a case to train or to validate on, which is what MONAI Label hands over at first.

    Raises:
        InputError: saying how many there are.
    """
    if not training or not validation:
        raise InputError(
            f"there are {len(training)} labelled cases to train on and {len(validation)} to validate on, and at least "
            "one of each is needed; label more cases (in MONAI Label three, or two with a val_split of 0.5; a "
            "val_split of 0 leaves none to validate on)"
        )


class _Check:
    """Check of one case, which prepares it as well where that is wanted and not in vain."""

    def __init__(self, load: Compose, keeper: VolumeKeeper | None, skip: bool) -> None:
        self.load, self.keeper, self.skip = load, keeper, skip
        self.in_vain = False

    def __call__(self, job: tuple[Case, bool]) -> tuple[str | None, dict[str, Any] | None]:
        """Return the sentence that refuses the case, or None and what was made of it, if anything."""
        case, wanted = job
        try:
            if self.keeper is not None and wanted and not self.in_vain:
                return None, self.keeper.prepare(case)
            self.load(case)
        except StoreError:  # no fault of the case
            raise
        except Exception as error:
            sentence = _sentence(error)
            self.in_vain = not self.skip
            return sentence, None
        return None, None


def _sentence(error: Exception) -> str:
    """Return what is wrong with the case; a defect of ours is raised again, and what is wrong with an option."""
    mistake = find_input_error(error)
    if mistake is None:
        raise error
    if isinstance(mistake, OptionError):
        raise mistake from error
    return str(mistake)


def _all_of(sentences: Sequence[str], cases: int) -> str:
    return "\n".join([f"{len(sentences)} of {cases} cases refused:", *(f"  {sentence}" for sentence in sentences)])
