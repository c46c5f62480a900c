"""What every rank of a captioning test does; apart from the tests, so that a started process imports little."""

from pathlib import Path
from typing import Any

from aaca.runtime.ranks import current
from aaca.training.caption_recipe import CaptionRecipe
from aaca.training.fit_captioner import CaptionJob, caption_set, fit_captioner, load_captioner
from aaca.training.trainer import TrainerSpec
from tests.training.caption_toys import Shapes, parse, tiny_spec


def fit_and_caption(argument: dict[str, Any]) -> dict[str, Any]:
    """Train, caption, and say what fit.json holds. All graphs are divided over the ranks."""
    folder, world = Path(argument["folder"]), current().world
    spec = TrainerSpec(accelerator="cpu", devices=world)
    train, val = Shapes(24), Shapes(7, seed=1)
    recipe = CaptionRecipe(
        epochs=4, batch_size=8 // world, lr=3e-3, length=12, monitor="loss", align="leak", align_weight=0.1
    )
    job = CaptionJob(
        train=train,
        val=val,
        words=train.words,
        spec=tiny_spec(train.words),
        recipe=recipe,
        trainer=spec,
        seed=3,
        label="fit",
        rationale={0: train.item(0).nodes.types == 0},
        parse=parse,
    )
    summary = fit_captioner(job, folder)
    model = load_captioner(folder, train.words)
    frame = caption_set(model, val, spec, 2, 12, "beam", 3, folder)
    return {**summary, "captions": frame.to_dict("list")}
