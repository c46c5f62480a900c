"""`python -m experiments.studies.digits_table ROOT FOLDER`: ColorMNIST, DecoyMNIST, TextureMNIST by method, as a table.

Mean ± standard deviation over seeds; beside them what Concept Distillation's poster gives for 54,000 training digits.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aaca.evaluate.outcome import FILE, PREDICTIONS, Outcome
from aaca.repair.concept_report import REPORT

from .collect import IGNORED, markdown
from .write import insert

PAPER = "concept_distillation_paper"
TEACHER = f"{PAPER} teacher=tiny"
POSTER = {
    "colormnist": {"f0": "Base 0.1", "local_penalty": "RRR 0.1", PAPER: "no teacher 26.97", TEACHER: "41.83"},
    "decoymnist": {"f0": "Base 52.84", "local_penalty": "RRR 99.0", PAPER: "no teacher 87.49", TEACHER: "98.58"},
    "texturemnist": {
        "f0": "Base 11.23",
        "local_penalty": "RRR 11.35",
        PAPER: "no teacher 38.72",
        TEACHER: "Ours 48.82",
    },
}
"""NeurIPS 2023 poster, by the names of its rows; selected on swapped validation digits."""
SLICES = {"aligned": "aligned", "random": "balanced", "swapped": "conflicting"}
NUMBERS = (*SLICES, "entropy", "tcav_before", "tcav_after", "cos_before", "cos_after", "cos_along")
CHOSEN = ("dataset=", "model=", "recipe=", "concept_images=", "method=", "size=")


def rows_of(root: Path) -> pd.DataFrame:
    """One row a run, and one a seed for f0. Raises `SystemExit` where no run has finished."""
    rows: list[dict[str, Any]] = []
    for file in sorted(root.glob(f"runs/*/{FILE}")):
        outcome = Outcome.load(file.parent)
        predictions = pd.read_parquet(file.parent / PREDICTIONS)
        test = predictions[predictions["split"] == "test"]
        extra = [entry for entry in outcome.overrides if not entry.startswith((*IGNORED, *CHOSEN))]
        about = {"dataset": outcome.dataset, "seed": outcome.seed, "uses": outcome.asks_for, "images": outcome.n_train}
        rows.append({**about, "method": " ".join([outcome.method, *extra]), **_numbers(test, "after")})
        rows[-1] |= _concepts(file.parent / REPORT)
        rows.append({**about, "uses": "", "method": "f0", **_numbers(test, "before")})
    if not rows:
        raise SystemExit(f"{root}: no finished run; expected folders with {FILE} below {root}/runs")
    found = pd.DataFrame(rows)
    twice = found[(found["method"] != "f0") & found.duplicated(["dataset", "method", "seed"])]
    if len(twice):
        raise SystemExit(
            f"{root}: several runs of {twice['method'].iloc[0]!r}, seed {twice['seed'].iloc[0]}; expected one"
        )
    return found.drop_duplicates(["dataset", "method", "seed"])


def _numbers(test: pd.DataFrame, which: str) -> dict[str, float]:
    # accuracies in %, and the entropy (nats, at most log 10) of the classes said of the swapped images
    right = test[which] == test["label"]
    said = test.loc[test["slice"] == "conflicting", which].value_counts(normalize=True)
    found = {name: 100 * float(right[test["slice"] == slice_].mean()) for name, slice_ in SLICES.items()}
    return {**found, "entropy": float(-(said * np.log(said)).sum())}


def _concepts(file: Path) -> dict[str, float]:
    # TCAV of each class's own bias, and the mean |cos| of all
    if not file.is_file():
        return {}
    report = json.loads(file.read_text(encoding="utf-8"))
    if len(report["before"]) != 10:
        return {}
    found = {}
    for when, where in (("before", "before"), ("after", "after"), ("along", "after_along_f0")):
        if all(one is not None for one in report.get(where, [None])):
            found[f"tcav_{when}"] = float(np.mean([one["tcav"][label] for label, one in enumerate(report[where])]))
            found[f"cos_{when}"] = float(np.mean([one["abs_cos"] for one in report[where]]))
    return found


def table(root: Path) -> pd.DataFrame:
    """Mean and standard deviation over seeds; the swapped accuracy decides the order."""
    found = []
    for (dataset, method), own in rows_of(root).groupby(["dataset", "method"]):
        entry: dict[str, Any] = {"dataset": dataset, "method": method, "uses": own["uses"].iloc[0], "seeds": len(own)}
        for name in NUMBERS:
            values = own[name] if name in own else pd.Series([np.nan])
            entry[name], entry[f"{name}_sd"] = values.mean(), values.std()
        name = str(method).removesuffix(" repair.where=corners")
        entry["poster"] = POSTER.get(str(dataset), {}).get(name, "")
        entry["train_images"] = int(own["images"].iloc[0])
        found.append(entry)
    return pd.DataFrame(found).sort_values(["dataset", "swapped"], ascending=[True, False]).round(3)


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """The columns of a README."""

    def pair(name: str, digits: int) -> list[str]:
        return [
            "" if pd.isna(mean) else f"{mean:.{digits}f}" + ("" if pd.isna(sd) else f" ± {sd:.{digits}f}")
            for mean, sd in zip(found[name], found[f"{name}_sd"], strict=True)
        ]

    def change(name: str, digits: int) -> list[str]:
        return [
            "" if pd.isna(before) else f"{before:.{digits}f} → {'gone' if pd.isna(after) else f'{after:.{digits}f}'}"
            for before, after in zip(found[f"{name}_before"], found[f"{name}_after"], strict=True)
        ]

    return pd.DataFrame(
        {
            "dataset": found["dataset"],
            "method": found["method"],
            "uses": found["uses"],
            "seeds": found["seeds"],
            "aligned": pair("aligned", 1),
            "random": pair("random", 1),
            "swapped": pair("swapped", 1),
            "TCAV": change("tcav", 2),
            "mean cos": change("cos", 3),
            "entropy": [f"{value:.2f}" for value in found["entropy"]],
            "poster (54k digits)": found["poster"],
        }
    )


def main(root: Path, folder: Path) -> None:
    """Write `results.csv` into the study's folder, and the table into its README; print it."""
    found = table(root)
    folder.mkdir(parents=True, exist_ok=True)
    found.to_csv(folder / "results.csv", index=False)
    text = markdown(shown(found))
    print(text)
    if (folder / "README.md").is_file():
        insert(folder / "README.md", text)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
