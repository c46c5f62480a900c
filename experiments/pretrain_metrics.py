"""How good the embedded models are, on images and prompts that none of them was trained with."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from aaca.data.captioned import CaptionedScenes, is_held_out
from aaca.data.table import ImageTable
from aaca.debugset.generators.base import Request
from aaca.debugset.generators.diffusion import DiffusionPainter
from aaca.models.judge import ASPECTS, NOTHING, Judge
from aaca.models.text_to_image import Diffusion
from aaca.models.zero_shot import ClipModel
from aaca.runtime.seeding import purpose_seed
from aaca.world.language import with_article
from aaca.world.pack import load_pack
from aaca.world.scenes import Sources

SEED = 1_000_003  # of the images here: no training run uses it
PHRASES = {"class": "a photo of {}", "scene": "a photo taken on {}", "concept": "a photo of a thing with {}"}


def scenes(images: int, sources: tuple[Sources, ...], held_out: bool) -> tuple[ImageTable, np.ndarray]:
    """New captioned scenes and their pixels `[N, S, S, 3]`."""
    with TemporaryDirectory(prefix="aaca-scenes-") as scratch:
        part = "held_out" if held_out else None
        table = CaptionedScenes(images, sources, part, seed=SEED, workers=1).build(Path(scratch))  # type: ignore[arg-type]
        return table, np.load(Path(scratch) / "images.npy")


def truth(table: ImageTable) -> dict[str, np.ndarray]:
    """What each aspect of each row is, as positions in `ASPECTS`."""
    frame = table.frame
    said = {"class": frame["cls"], "scene": frame["scene"], "concept": frame["concept"].fillna(NOTHING)}
    return {name: np.array([ASPECTS[name].index(word) for word in words]) for name, words in said.items()}


def accuracies(said: dict[str, np.ndarray], true: dict[str, np.ndarray]) -> dict[str, float]:
    """Share of right answers an aspect, in per cent."""
    return {name: round(100 * float((answers == true[name]).mean()), 1) for name, answers in said.items()}


def judged(judge: Judge, images: np.ndarray) -> dict[str, np.ndarray]:
    """The judge's answer an aspect."""
    return {name: values.argmax(axis=1) for name, values in judge.verdicts(images).items()}


def judge_metrics(judge: Judge, images: int = 150) -> dict[str, Any]:
    """On new images of its own sources, and on the sources of the other models (its ceiling as their judge)."""
    own, own_images = scenes(images, ("val", "test"), held_out=False)
    other, other_images = scenes(images, ("train",), held_out=False)
    return {
        "new images of its sources": accuracies(judged(judge, own_images), truth(own)),
        "train sources": accuracies(judged(judge, other_images), truth(other)),
    }


@torch.no_grad()
def clip_metrics(folder: Path, images: int = 150) -> dict[str, Any]:
    """Zero-shot accuracy on balanced renders: held-out combinations of train sources, and new sources."""
    clip = ClipModel(str(folder), image_size=64).load()
    found: dict[str, Any] = {}
    for name, sources, held_out in (
        ("held-out combinations of train sources", ("train",), True),
        ("new sources (test)", ("test",), False),
    ):
        table, pixels = scenes(images, sources, held_out)  # type: ignore[arg-type]
        batches = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1).split(64)
        vectors = torch.cat([clip.image_vectors(batch) for batch in batches])
        true, said = truth(table), {}
        shown = np.ones(len(table), dtype=bool)
        for aspect, choices in ASPECTS.items():
            names = [choice for choice in choices if choice != NOTHING]
            tokens = clip.tokenizer([PHRASES[aspect].format(with_article(choice)) for choice in names])
            texts = clip.model.encode_text(tokens, normalize=True)
            said[aspect] = (vectors @ texts.T).argmax(dim=1).numpy()
            if aspect == "concept":  # asked only where there is one
                shown = true["concept"] != ASPECTS["concept"].index(NOTHING)
        found[name] = accuracies(
            {**said, "concept": said["concept"][shown]}, {**true, "concept": true["concept"][shown]}
        )
    return found


def held_out_prompts() -> list[tuple[str, tuple[str, str, str]]]:
    """Prompts of all combinations that training left out, with (class, ground, co-object or nothing)."""
    pack, found = load_pack(), []
    for cls in pack.classes:
        for scene in pack.labels("scene"):
            where = f"a photo of {with_article(cls)} on {with_article(scene)}"
            if is_held_out(cls, scene, None, None):
                found.append((where, (cls, scene, NOTHING)))
            for concept in pack.labels("concept"):
                for relation in ("left of", "right of"):
                    if is_held_out(cls, scene, concept, relation):
                        found.append((f"{where} {relation} {with_article(concept)}", (cls, scene, concept)))
    return found


def diffusion_metrics(settings: Diffusion, judge: Judge, each: int = 12) -> tuple[dict[str, Any], Image.Image]:
    """The judge on images for the held-out prompts, beside its opinion of real renders; and a sheet of them."""
    prompts = held_out_prompts()
    requests = [
        Request(index, 0, text, "", "", (purpose_seed(SEED, "image", text, turn),))
        for index, (text, turn) in enumerate((text, turn) for text, _ in prompts for turn in range(each))
    ]
    painter = DiffusionPainter(settings.load(), settings, None)
    drawn: list[np.ndarray] = []
    for start in range(0, len(requests), settings.batch_size):
        batch = requests[start : start + settings.batch_size]
        pictures = painter(batch, [request.seeds[0] for request in batch])
        drawn += [np.zeros((64, 64, 3), np.uint8) if picture is None else picture for picture in pictures]
    images = np.stack(drawn)
    wanted = [content for _, content in prompts for _ in range(each)]
    true = {
        name: np.array([ASPECTS[name].index(content[place]) for content in wanted])
        for place, name in enumerate(ASPECTS)
    }
    said = judged(judge, images)
    real, pixels = scenes(max(1, len(requests) // 4), ("train",), held_out=True)
    metrics: dict[str, Any] = {
        "prompts": len(prompts),
        "images": len(images),
        "judge on the generated images": accuracies(said, true),
        "judge on real renders of such prompts": accuracies(judged(judge, pixels), truth(real)),
    }
    for name in ("class", "scene"):
        table = np.zeros((len(ASPECTS[name]),) * 2, dtype=int)
        np.add.at(table, (true[name], said[name]), 1)
        metrics[f"confusion of {name} (rows: asked for; columns: seen)"] = {
            choice: dict(zip(ASPECTS[name], row.tolist(), strict=True))
            for choice, row in zip(ASPECTS[name], table, strict=True)
        }
    rows = [np.concatenate(list(images[place * each : (place + 1) * each]), axis=1) for place in range(len(prompts))]
    return metrics, Image.fromarray(np.concatenate(rows, axis=0))


@torch.no_grad()
def autoencoder_metrics(vae: Any, judge: Judge, images: int = 50) -> dict[str, Any]:
    """Fidelity of held-out renders after the autoencoder, and what the judge still sees in them."""
    table, pixels = scenes(images, ("train",), held_out=True)
    batches = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1).split(50)
    back = torch.cat([vae.decode(vae.encode(batch).latent_dist.mean).sample.clamp(-1, 1) for batch in batches])
    again = ((back + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    error = float(np.square(again.astype(np.float64) - pixels).mean())
    return {
        "PSNR (dB)": round(10 * float(np.log10(255**2 / error)), 1),
        "judge on the reconstructions": accuracies(judged(judge, again), truth(table)),
        "judge on the originals": accuracies(judged(judge, pixels), truth(table)),
    }
