"""`ScanReport`: what a scan of a table's images found, and the table without what must not be used."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from aaca.data.duplicates import KINDS as DUPLICATE_KINDS
from aaca.data.inspect_file import KINDS as FILE_KINDS
from aaca.data.inspect_file import Severity
from aaca.data.table import ImageTable
from aaca.runtime.errors import DataError
from aaca.runtime.files import atomic_path, write_json

COLUMNS = ("id", "path", "row", "split", "kind", "severity", "detail")

SEVERITY: dict[str, Severity] = {
    **{kind: severity for kind, (severity, _) in FILE_KINDS.items()},
    **DUPLICATE_KINDS,
    "bad_array": "refused",
    "left_out": "refused",
}
"""Every kind of finding. bad_array: an array row that is no uint8 RGB image; left_out: never entered the table."""


@dataclass(frozen=True)
class ScanReport:
    """Findings of one scan, one row each, with `COLUMNS`; `id` is "" for files that never entered the table."""

    findings: pd.DataFrame
    images: int  # rows that were looked at
    seconds: float
    splits: dict[str, int] = field(default_factory=dict)  # rows a split

    def counts(self, severity: Severity | None = None) -> dict[str, int]:
        """Images by kind of finding, most frequent first."""
        rows = self.findings if severity is None else self.findings[self.findings["severity"] == severity]
        return {str(kind): int(count) for kind, count in rows["kind"].value_counts().items()}

    @property
    def refused(self) -> list[dict[str, str]]:
        """Images that must not be used, {path, reason}: what `Benchmark.refused` records."""
        rows = self.findings[self.findings["severity"] == "refused"]
        reasons = rows["kind"] + ": " + rows["detail"]
        return [{"path": path, "reason": reason} for path, reason in zip(rows["path"], reasons, strict=True)]

    def clean(self, table: ImageTable) -> ImageTable:
        """The table without refused rows; `counts("refused")` says how many of which kind. Warnings stay."""
        refused = self.findings.loc[self.findings["severity"] == "refused", "id"]
        return table.take(np.asarray(~table.frame["id"].isin(set(refused) - {""})))

    def summary(self, examples: int = 3) -> str:
        """Plain text for a terminal: images looked at, then each kind with its count and a few examples."""
        lines = [f"{self.images} images looked at in {self.seconds:.1f} s"]
        for severity in ("refused", "warning"):
            for kind, count in self.counts(severity).items():
                lines.append(f"{severity}: {count} × {kind}")
                rows = self.findings[(self.findings["kind"] == kind) & (self.findings["severity"] == severity)]
                for row in rows.head(examples).itertuples(index=False):
                    lines.append(f"    {_visible(_name(row.path, row.row))}: {_visible(row.detail)}")
                if count > examples:
                    lines.append(f"    … and {count - examples} more")
        if len(lines) == 1:
            lines.append("nothing unusual")
        return "\n".join(lines)

    def save(self, folder: Path) -> None:
        """Write `findings.parquet`, `findings.csv` (for people) and `scan.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / "findings.parquet") as temporary:
            self.findings.to_parquet(temporary, index=False)
        with atomic_path(folder / "findings.csv") as temporary:
            self.findings.to_csv(temporary, index=False)
        write_json(
            folder / "scan.json",
            {
                "images": self.images,
                "seconds": self.seconds,
                "splits": self.splits,
                "refused": self.counts("refused"),
                "warning": self.counts("warning"),
            },
        )

    @classmethod
    def load(cls, folder: Path) -> "ScanReport":
        """Read what `save` wrote. Raises `DataError` when `folder` holds no report."""
        facts = folder / "scan.json"
        if not facts.is_file():
            raise DataError(f"{folder}: not a scan report (scan.json is missing)")
        values = json.loads(facts.read_text(encoding="utf-8"))
        findings = pd.read_parquet(folder / "findings.parquet")
        return cls(findings, values["images"], values["seconds"], values["splits"])


def findings_frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    """A frame of findings, `severity` filled in from the kind."""
    frame = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "severity"])
    frame = frame.astype({**dict.fromkeys(frame.columns, "str"), "row": "int64"})
    frame.insert(COLUMNS.index("severity"), "severity", frame["kind"].map(SEVERITY).astype("str"))
    return frame


def _name(path: str, row: int) -> str:
    return path if row < 0 else f"{path}[{row}]"


def _visible(text: str) -> str:
    """The text with control characters escaped: a file name must not steer the terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
