"""How often the evidence names the planted bug, from finished runs with evidence, written into docs/evidence.md.

aaca debug -m method=custom method.name=evidence generator=renderer prompts=concept_sets filters=none \
        debugset.candidates=generated attribution=auto concepts=gt,tags clip=tiny annotator=oracle seed=0,1,2,3,4
the same with method.name=evidence_nobug dataset.bugs=[]
python docs/make_evidence.py [paths.root]
"""

import re
import sys
from pathlib import Path

import pandas as pd

from aaca.runtime.files import read_json

DOCS = Path(__file__).parent
PLANTED = {"bird": "sand", "mammal": "grass", "produce": "ball"}


def rank(frame: pd.DataFrame, score: str, name: str, belongs: set[str]) -> int | None:
    """Place of a concept by a score among those that do not belong to the class; None where it has none."""
    own = frame[(frame[score] > 0) & ~frame["concept"].isin(belongs)].sort_values(score, ascending=False)
    names = own["concept"].tolist()
    return names.index(name) + 1 if name in names else None


def of_run(folder: Path) -> list[dict[str, object]]:
    """One row a class with a bug: the place of its planted concept by S_rely, and by S_conf towards the class."""
    evidence = pd.read_parquet(folder / "evidence.parquet")
    outcome = read_json(folder / "outcome.json")
    source = next((item.split("=")[1] for item in outcome["overrides"] if item.startswith("concepts=")), "gt")
    found = []
    for name, planted in PLANTED.items():
        own = evidence[(evidence["class"] == name) & (evidence["rival"] == "*")]
        towards = evidence[(evidence["class"] == "*") & (evidence["rival"] == name)]
        belongs = {name} if outcome["confounders"] else set()
        found.append(
            {
                "concepts": source,
                "bugs": bool(outcome["confounders"]),
                "seed": outcome["seed"],
                "class": name,
                "by S_rely": rank(own, "S_rely", planted, belongs),
                "by S_conf": rank(towards, "S_conf", planted, belongs),
            }
        )
    flags = evidence[evidence["confounder"] | evidence["relied_on"]]
    found.append(
        {
            "concepts": source,
            "bugs": bool(outcome["confounders"]),
            "seed": outcome["seed"],
            "class": "flagged",
            "flagged": len(flags),
            "rows": len(evidence),
        }
    )
    return found


def method_of(run: Path) -> str:
    """The name under which it ran."""
    return str(read_json(run / "outcome.json")["method"])


def main(root: Path) -> None:
    """Write the table."""
    found = sorted(path.parent for path in (root / "runs").glob("*/evidence.parquet"))
    runs = [run for run in found if (run / "outcome.json").is_file() and method_of(run).startswith("evidence")]
    if not runs:
        sys.exit(f"{root}: no run with evidence; the commands are at the top of {Path(__file__).name}")
    table = pd.DataFrame([row for run in runs for row in of_run(run)])
    lines = [
        "| concepts | class | planted | seeds | first by S_rely | in the first three by S_rely | first by S_conf |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    biased = table[table["bugs"] & (table["class"] != "flagged")]
    for (source, name), rows in biased.groupby(["concepts", "class"]):
        rely, conf = rows["by S_rely"], rows["by S_conf"]
        cells = [source, name, PLANTED[name], len(rows), int((rely == 1).sum()), int((rely <= 3).sum())]
        lines.append("| " + " | ".join(map(str, [*cells, int((conf == 1).sum())])) + " |")
    flagged = table[table["class"] == "flagged"]
    lines.append("")
    for (source, bugs), rows in flagged.groupby(["concepts", "bugs"]):
        what = "with the planted bugs" if bugs else "without any bug"
        share = 100 * rows["flagged"].sum() / rows["rows"].sum()
        counts = f"{int(rows['flagged'].sum())} of {int(rows['rows'].sum())} rows ({share:.1f} %)"
        lines.append(f"- `concepts={source}`, {what}: {counts} called confounder or relied on, in {len(rows)} runs.")
    between = "<!-- found -->\n" + "\n".join(lines) + "\n<!-- /found -->"
    page = DOCS / "evidence.md"
    text = re.sub(
        r"<!-- found -->.*<!-- /found -->", lambda _: between, page.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    page.write_text(text, encoding="utf-8")
    print(between)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs"))
