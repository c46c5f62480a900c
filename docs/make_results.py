"""`make docs`: the demo's table and the report's picture, written into docs/ from a finished comparison.

Usage: python docs/make_results.py [paths.root of the demo]; needs `chromium` for the picture.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
TEXT = """# Results of the demo

Written by `make docs` from the runs of `make demo-full` (StampScenes, small ResNet, size=demo, three seeds).
Per cent of test images on *new* sources, mean ± sd over seeds; Δ of *balanced*, in points, with its
95 % bootstrap interval over sources.

{table}

`s_random` is the reference; `none` and `duplicate` are the controls. Seen sources: see the report.

What the numbers mean, and how far to trust them: [findings.md](findings.md).

`docs/report.png` is the top of that report (headless Chromium, 1200 × 1900 pixels), SHA-256
{sha}.
"""
QUIET = (
    "--hide-scrollbars",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
)


def table(comparison: dict) -> str:
    """The comparison's summary as Markdown."""
    columns = ["accuracy", "test_aligned", "test_conflicting", "worst_group_accuracy", "repaired", "newly_broken"]
    lines = [
        "| method | seeds | balanced | aligned | conflicting | worst group | repaired | newly broken | Δ to s_random |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in comparison["summary"]:
        cells = [row["method"], str(row["n_seeds"])]
        for column in columns:
            mean, sd = row[column], row[f"{column}_sd"]
            scale = 1 if column in {"repaired", "newly_broken"} else 100
            spread = "" if sd is None else f" ± {scale * sd:.1f}"
            cells.append(f"{scale * mean:.1f}{spread}")
        low, high = row.get("accuracy_difference_low"), row.get("accuracy_difference_high")
        if low is None or high is None:
            cells.append("reference")
        else:
            cells.append(f"{100 * row['accuracy_difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def screenshot(report: Path, picture: Path, height: int) -> None:
    """The top of the report as a PNG, by headless Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("make docs: chromium is not installed, so the report's picture cannot be taken")
    with tempfile.TemporaryDirectory() as profile:
        size = f"--window-size=1200,{height}"
        shot = f"--screenshot={picture}"
        flags = [*QUIET, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", size, shot]
        subprocess.run([browser, *flags, report.absolute().as_uri()], check=True, capture_output=True)


def main(root: Path) -> None:
    """Write docs/results.md, the table in README.md, and docs/report.png."""
    comparison = json.loads((root / "comparison.json").read_text(encoding="utf-8"))
    screenshot(root / "report.html", DOCS / "report.png", 1900)
    sha = hashlib.sha256((DOCS / "report.png").read_bytes()).hexdigest()
    text = TEXT.format(table=table(comparison), sha=sha)
    (DOCS / "results.md").write_text(text, encoding="utf-8")
    readme = DOCS.parent / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition("<!-- results -->")
    after = rest.partition("<!-- /results -->")[2]
    filled = f"{before}<!-- results -->\n{table(comparison)}\n<!-- /results -->{after}"
    readme.write_text(filled, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/demo"))
