"""What every rank of a repair's test does; apart from the test, so that a started process imports little."""

from pathlib import Path
from typing import Any

from aaca.data.benchmark import Benchmark
from aaca.repair.base import RepairContext
from aaca.repair.concept_distillation import DistilConcepts
from aaca.repair.group_dro import GroupDroRepair
from aaca.runtime.ranks import current
from aaca.training.trainer import TrainerSpec
from tests.repair_toys import stripe_pair
from tests.toys import plain_recipe, tiny_vit


def repair(argument: dict[str, Any]) -> dict[str, Any]:
    """Concept distillation and Group DRO of the f0 that was made before, the batches divided over the ranks."""
    world, root = current().world, Path(argument["root"])
    context = RepairContext(
        benchmark=Benchmark.load(root / "saved"),
        debug=None,
        f0_weights=root / "f0" / "model.safetensors",
        model=tiny_vit(),
        recipe=plain_recipe(epochs=2, batch_size=16 // world, lr=1e-3),
        trainer=TrainerSpec(accelerator="cpu", devices=world),
        rule="last",
        epoch_size=96,
        seed=0,
        pairs=(stripe_pair(), stripe_pair(20, classes=("red",))),
    )
    done = {}
    for name, strategy in (
        ("proto", DistilConcepts(target="proto", prototypes=2, strength=5.0, epochs=1)),
        ("logit", DistilConcepts(target="logit", pool="gap", strength=5.0, epochs=1)),
        ("group_dro", GroupDroRepair(eta=0.5, init="f0", epochs=1, lr=1e-3)),
    ):
        folder = Path(argument["out"]) / name
        if current().rank == 0:
            folder.mkdir(parents=True)
        current().exchange("ready")
        done[name] = strategy.apply(context, folder)
    return done
