"""`CaptionModule`: a graph captioner trained, validated and put to use; stops at the first loss that is not finite."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from aaca.data.scenegraph.batch import GraphBatch
from aaca.data.scenegraph.vocabulary import Words
from aaca.evaluate.captions.bleu import bleu
from aaca.evaluate.captions.cider import CiderIndex
from aaca.evaluate.captions.structure import ERRORS, Parse, structure_error
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.models.captioner.decode import beam, greedy
from aaca.runtime.errors import AacaError, DataError
from aaca.runtime.ranks import current
from aaca.training import align_losses
from aaca.training.caption_data import CaptionSource
from aaca.training.caption_recipe import CaptionRecipe

PERCENT = 100.0
STRUCTURE = {"go": "g_objects", "ga": "g_attributes", "gr": "g_relationships"}


def teach(model: GraphCaptioner, batch: GraphBatch) -> tuple[Tensor, Tensor]:
    """(log p(y_t | y_<t) `[B, T-1]`, 0 where no word counts; attention α `[B, T-1, N]`), the true words fed in."""
    forced = model.forced(batch)
    losses = F.cross_entropy(forced.logits.float(), forced.targets, reduction="none")  # 0 where a target does not count
    return -forced.padded(losses), forced.padded(forced.attention)


class CaptionModule(pl.LightningModule):
    """Trains `model` by `recipe` for `batches` batches an epoch (on each device).

    The loss is Σ −log p(y_t | y_<t) / (number of words), over the words of a batch of all devices, each caption's end
    counted; plus `weight` × the alignment loss of the recipe. It logs `loss/xe`, `loss/align` (means over an
    epoch's batches), and of the validation set `val/loss`, `val/cider`, `val/bleu4` and, with `parse` for captions,
    `val/go`, `val/ga` and `val/gr`: exact under any number of devices.

    `rationale`: bool `[n]` over a training sample's nodes, by row; all nodes where a row is not in it.
    """

    def __init__(
        self,
        model: GraphCaptioner,
        words: Words,
        recipe: CaptionRecipe,
        batches: int = 0,
        train: CaptionSource | None = None,
        val: CaptionSource | None = None,
        rationale: Mapping[int, np.ndarray] | None = None,
        parse: Parse | None = None,
    ) -> None:
        super().__init__()
        self.model, self.words, self.recipe, self.batches = model, words, recipe, batches
        self.sets = {"training": train, "validation": val}
        self.rationale = rationale or {}
        self.parse = parse
        self.steps = recipe.length - 1  # the begin of a caption is given
        self.seen = self._nothing()
        self.judged: dict[int, tuple[float, int, str]] = {}
        """Of each validation row: summed −log p, words, caption."""
        self.captions: dict[int, tuple[str, float]] = {}
        """Of each row this rank has predicted: caption, its log-probability."""

    def _nothing(self) -> dict[str, float]:
        return {"xe": 0.0} if self.recipe.align == "none" else {"xe": 0.0, "align": 0.0}

    def on_train_epoch_start(self) -> None:
        """A new epoch, new mean losses."""
        self.seen = self._nothing()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the sums of this epoch's losses, mean over ranks."""
        sums = current().exchange(self.seen)
        checkpoint["epoch_losses"] = {name: sum(each[name] for each in sums) / len(sums) for name in self.seen}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the sums."""
        self.seen = dict(checkpoint["epoch_losses"])

    def training_step(self, batch: GraphBatch, batch_idx: int) -> Tensor:
        """The loss of one batch.

        Raises `AacaError` naming the samples when it is not finite, `DataError` for a rationale that is not bool `[n]`.
        """
        recipe = self.recipe
        if recipe.align == "attribution":
            batch = replace(batch, features=batch.features.detach().requires_grad_())
        log_probs, attention = teach(self.model, batch)
        loss = self._mean(-log_probs.sum(), batch.word_mask.sum())
        losses = {"xe": loss}
        if recipe.align != "none":
            losses["align"] = self._mean(*self._align(batch, log_probs, attention))
            if recipe.weight > 0:
                loss = loss + recipe.weight * losses["align"]
        for name, value in losses.items():
            self._check(value, batch, "training", f"epoch {self.current_epoch}, batch {batch_idx}")
            self.seen[name] += float(value.detach())
        if batch_idx + 1 == self.batches:
            means = {f"loss/{name}": value / self.batches for name, value in self.seen.items()}
            self.log_dict(means, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch.rows))
        return loss

    def _mean(self, total: Tensor, count: Tensor) -> Tensor:
        # over the words of all ranks: what a rank adds is so scaled that the mean over ranks, which DDP takes, is it
        world = self.trainer.world_size
        count = count.to(total.dtype)
        if world > 1:
            torch.distributed.all_reduce(count)
        return total * world / count.clamp_min(1.0)

    def _align(self, batch: GraphBatch, log_probs: Tensor, attention: Tensor) -> align_losses.Mean:
        if self.recipe.align == "attention":
            captions = [self.words.decode(ids) for ids in batch.words.tolist()]
            named = align_losses.named_nodes(batch.names, captions, *attention.shape[1:])
            return align_losses.attention(attention, named.to(attention.device), batch.word_mask)
        rationale = self._rationale(batch)
        if self.recipe.align == "leak":
            return align_losses.leak(attention, rationale, batch.mask, batch.word_mask)
        return align_losses.attribution(batch.features, log_probs.sum(), rationale, batch.mask)

    def _rationale(self, batch: GraphBatch) -> Tensor:
        found = batch.mask.clone()
        for at, (row, names) in enumerate(zip(batch.rows.tolist(), batch.names, strict=True)):
            own = self.rationale.get(row)
            if own is None:
                continue
            if own.shape != (len(names),) or own.dtype != bool:
                raise DataError(
                    f"rationale of training row {row}: {own.dtype} {list(own.shape)}; expected bool [{len(names)}], "
                    "one a node"
                )
            found[at, : len(names)] = torch.from_numpy(own).to(found.device)
        return found

    def _check(self, loss: Tensor, batch: GraphBatch, part: str, where: str) -> None:
        value, source = float(loss.detach()), self.sets[part]
        if not math.isfinite(value):
            rows = batch.rows.tolist()
            shown = ", ".join(map(str, rows[:8]) if source is None else map(source.name, rows[:8]))
            raise AacaError(
                f"{part} loss is {value} at {where} (samples {shown}{', …' if len(rows) > 8 else ''}); nothing was "
                "saved; look at these samples' features, lower training.lr, set training.clip_grad=1, or use "
                "trainer.precision=32-true"
            )

    def validation_step(self, batch: GraphBatch, batch_idx: int) -> None:
        """Loss and likeliest caption of each sample of a batch."""
        log_probs, _ = teach(self.model, batch)
        losses = -log_probs.double().sum(dim=1)
        self._check(losses.sum(), batch, "validation", f"epoch {self.current_epoch}")
        said = greedy(self.model, batch, self.steps).words
        counts = batch.word_mask.sum(dim=1).tolist()
        for row, loss, count, ids in zip(batch.rows.tolist(), losses.tolist(), counts, said, strict=True):
            self.judged[row] = (loss, count, self.words.decode(ids))

    def on_validation_epoch_end(self) -> None:
        """Bring the ranks' captions together, each row once; rank 0 scores them, all log the same."""
        ranks = current()
        parts = ranks.exchange(list(self.judged.items()))
        self.judged = {}
        judged = {row: tuple(found) for part in parts for row, found in part}
        scores = ranks.share(self._scores(judged) if ranks.rank == 0 else None)
        for name, value in scores.items():
            self.log(f"val/{name}", value, prog_bar=True, rank_zero_only=True)

    @cached_property
    def judge(self) -> tuple[dict[str, list[str]], CiderIndex]:
        """The validation references and their document frequencies, read once."""
        val = self.sets["validation"]
        assert val is not None
        references = val.references()
        return references, CiderIndex.fit(references)

    def _scores(self, judged: Mapping[int, tuple[float, int, str]]) -> dict[str, float]:
        # loss a word; CIDEr-D with the validation references' document frequencies, and BLEU-4, both times 100
        val = self.sets["validation"]
        assert val is not None
        references, index = self.judge
        said = {val.name(row): judged[row][2] for row in sorted(judged)}
        scores = {
            "loss": math.fsum(loss for loss, _, _ in judged.values()) / sum(count for _, count, _ in judged.values()),
            "cider": PERCENT * float(index.scores(said, references).mean()),
            "bleu4": PERCENT * float(bleu(said, references)[3]),
        }
        if self.parse is not None:
            errors = [structure_error(self.parse(judged[row][2]), val.graph(row)) for row in sorted(judged)]
            means = dict(zip(ERRORS, np.mean(errors, axis=0).tolist(), strict=True))
            scores |= {short: means[name] for short, name in STRUCTURE.items()}
        return scores

    def predict_step(self, batch: GraphBatch, batch_idx: int) -> None:
        """Caption a batch as the recipe says."""
        recipe = self.recipe
        if recipe.decode == "beam":
            found = beam(self.model, batch, recipe.width, self.steps)
        else:
            found = greedy(self.model, batch, self.steps)
        for row, ids, log_prob in zip(batch.rows.tolist(), found.words, found.log_probs.tolist(), strict=True):
            self.captions[row] = (self.words.decode(ids), log_prob)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam at one learning rate throughout."""
        return torch.optim.Adam(self.model.parameters(), lr=self.recipe.lr, weight_decay=self.recipe.weight_decay)
