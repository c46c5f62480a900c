"""A pack of tasks with hostile names, and who serves it."""

from pathlib import Path

import numpy as np

from aaca.annotate.pack import write_pack
from aaca.annotate.task import Candidate, Task

EVIL = "<img src=x onerror=\"document.title='owned'\">"
CLASSES = (EVIL, "bird")


def tasks(n: int = 10) -> list[Task]:
    found = []
    for number in range(n):
        right = number % 3 == 2
        name = CLASSES[number % 2]
        found.append(
            Task(
                task_id=f"{'control' if right else 'failure'}/image-{number}",
                kind="control" if right else "failure",
                image_id=f"image-{number}",
                class_=name,
                predicted=name if right else CLASSES[1 - number % 2],
                candidates=(
                    Candidate("sand", "background", 0.6, 0.4, 0.5),
                    Candidate("</script><script>document.title='owned'</script>", "object", 0.3, 0.5, 0.2),
                    Candidate("beak", "attribute", 0.1, 0.1, 0.1),
                ),
                others=("grass", "ball"),
                controls=("image-0", "image-1"),
            )
        )
    return found


def pack_folder(folder: Path, n: int = 10) -> Path:
    rng = np.random.default_rng(0)
    images = {f"image-{number}": rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for number in range(n)}
    maps = {name: rng.random((4, 4)) for name in ("predicted", "true", "contrast")}
    folder.mkdir(parents=True, exist_ok=True)
    write_pack(folder, tasks(n), images.__getitem__, lambda name: maps)
    return folder
