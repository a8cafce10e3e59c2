"""Compare the nets of studies with one of them: ``python bundles/studies/recipe/summary.py --to today STUDY...``.

A STUDY is the output folder of a study, or several of one kind, as of the folds of a cross-validation, whose patients
are taken together. What is compared is the mean Dice over the classes of a patient, of the same seed; the interval
draws patients and seeds anew (:mod:`kvseg_monai.study.statistics`). Prints a table, and writes it as CSV.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kvseg_monai.errors import InputError, run_command
from kvseg_monai.study.statistics import difference
from kvseg_monai.utils.files import write_text

DEAD = 0.01  # a class below it, over all patients, counts as never predicted


def read(folders: Sequence[Path]) -> pd.DataFrame:
    """Return the rows of all studies' ``results.csv``."""
    missing = [str(folder) for folder in folders if not (folder / "results.csv").is_file()]
    if missing:
        raise InputError(f"no results.csv in {', '.join(missing)}; run the study first")
    rows = pd.concat([pd.read_csv(folder / "results.csv") for folder in folders], ignore_index=True)
    return rows[rows["class"] != "mean"]


def compare(rows: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return a row a net: its mean Dice, that of each class, dead seeds, and the difference to the reference."""
    rows = rows.assign(net=rows["net"].where(rows.groupby("net")["attention"].transform("nunique") == 1, _named(rows)))
    nets = list(dict.fromkeys(rows["net"]))
    if reference not in nets:
        raise InputError(f"--to is {reference!r}; it must be one of {', '.join(nets)}")
    scores = rows.groupby(["net", "seed", "patient"])["dice"].mean()
    classes = rows.groupby(["net", "class"])["dice"].mean()
    weakest = rows.groupby(["net", "seed", "class"])["dice"].mean().groupby(["net", "seed"]).min()
    table = []
    for net in nets:
        paired = scores[net].unstack().sub(scores[reference].unstack()).dropna(how="all").dropna(axis=1, how="all")
        found = difference(paired.to_numpy())
        facts = rows[rows["net"] == net].drop_duplicates(["seed", "training_seconds"])
        table.append(
            {
                "net": net,
                "seeds": scores[net].unstack().shape[0],
                "patients": scores[net].unstack().shape[1],
                "parameters": int(facts["parameters"].iloc[0]),
                "seconds": round(facts["training_seconds"].mean()),
                **{name: round(classes[net, name], 4) for name in rows["class"].unique()},
                "dice": round(scores[net].mean(), 4),
                "dead": int((weakest[net] < DEAD).sum()),
                **{"to": reference, "paired_seeds": found.seeds, "difference": round(found.mean, 4)},
                **{"low": round(found.low, 4), "high": round(found.high, 4)},
            }
        )
    return pd.DataFrame(table)


def _named(rows: pd.DataFrame) -> pd.Series:
    return rows["net"] + "-" + rows["attention"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY")
    parser.add_argument("--to", required=True, metavar="NET", help="the net that the others are compared with")
    parser.add_argument("--target", type=Path, metavar="FILE.csv", help="where the table goes as well")
    options = parser.parse_args()
    table = compare(read(options.studies), options.to)
    print(table.to_string(index=False))
    if options.target:
        write_text(options.target, table.to_csv(index=False))


if __name__ == "__main__":
    run_command(main)
