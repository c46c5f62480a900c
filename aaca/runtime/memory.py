"""Peak memory of a part of this process's life, where the kernel tells (Linux)."""

from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak_memory() -> None:
    """Start counting the peak afresh; without effect where the kernel has no such switch."""
    if CLEAR.exists():
        CLEAR.write_text("5")


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process (not of its workers or ranks) since the reset, in MB; None if unknown."""
    if not CLEAR.exists():
        return None
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
