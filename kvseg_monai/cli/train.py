"""``kvseg train``: one training, or those of all folds of a cross-validation."""

from collections.abc import Sequence

from kvseg_monai.bundle.find import TRAIN
from kvseg_monai.cli.workflows import parse_words, run_workflow
from kvseg_monai.utils.run_options import read_options


def main(words: Sequence[str]) -> int | None:
    """Run the plain line of a training; with ``--folds`` and no ``--fold``, train and score each fold in turn."""
    if wants_all_folds(words):
        from kvseg_monai.cli.folds import train_folds  # imports torch and monai, which a single line does without

        return train_folds(words)
    run_workflow(TRAIN, words)
    return None


def wants_all_folds(words: Sequence[str]) -> bool:
    """Return whether ``--folds`` is given and no ``--fold``."""
    if {"-h", "--help"} & set(words):
        return False
    given = read_options(parse_words(TRAIN, words)[2])
    return given.get("folds") is not None and given.get("fold") is None
