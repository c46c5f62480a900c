import itertools
import re
from dataclasses import replace

import pytest
import torch

from aaca.data.scenegraph.batch import GraphBatch
from aaca.data.scenegraph.vocabulary import BOS, EOS
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.models.captioner.decode import Captions, _top, beam, greedy
from aaca.models.captioner.spec import VARIANTS, CaptionerSpec
from aaca.runtime.errors import ConfigError
from tests.captioner_reference import in_double, random_batch

SIZES = {"features": 10, "global_features": 6, "hidden": 16, "attention": 8, "dropout": 0.1}


def model_of(words: int, variant: str = "rgcn_flow_memory", sharp: float = 12.0, seed: int = 1) -> GraphCaptioner:
    """Untrained, but with weights so large that captions differ and some end."""
    model = GraphCaptioner(CaptionerSpec(words=words, **SIZES, **VARIANTS[variant]), seed).double().eval()
    with torch.no_grad():
        model.words.weight.mul_(sharp)
        for parameter in model.decoder.parameters():
            parameter.mul_(4)
    return model


def graphs(model: GraphCaptioner, count: int, seed: int = 0) -> GraphBatch:
    return in_double(random_batch(model.spec, [2] * count, seed))


@torch.no_grad()
def log_prob(model: GraphCaptioner, batch: GraphBatch, at: int, tokens: list[int]) -> float:
    """Σ log p of tokens, by the forward pass over one graph alone."""
    row = {name: getattr(batch, name)[at : at + 1] for name in vars(batch) if name != "names"}
    words = torch.tensor([[BOS, *tokens]])
    single = replace(batch, **{**row, "words": words, "word_mask": torch.ones(1, len(tokens), dtype=torch.bool)})
    return float(model(single).log_softmax(2)[0, torch.arange(len(tokens)), tokens].sum())


def tokens_of(captions: Captions, at: int) -> list[int]:
    words = captions.words[at]
    return [*words, EOS] if len(captions.attention[at]) > len(words) else words


def everything(vocabulary: int, length: int) -> list[list[int]]:
    """All captions a search may return: ended by EOS, or of full length."""
    spoken = [word for word in range(vocabulary) if word != EOS]
    ended = [[*words, EOS] for n in range(length) for words in itertools.product(spoken, repeat=n)]
    return ended + [list(words) for words in itertools.product(spoken, repeat=length)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_beam_of_one_is_greedy(variant):
    model = model_of(9, variant)
    batch = graphs(model, 12)
    one, other = greedy(model, batch, 8), beam(model, batch, 1, 8)
    assert one.words == other.words
    assert torch.allclose(one.log_probs, other.log_probs, rtol=0, atol=1e-12)
    for mine, theirs in zip(one.attention, other.attention, strict=True):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-12)
    assert len({len(attention) for attention in one.attention}) > 1


@pytest.mark.parametrize("width", [None, 3])
@torch.no_grad()
def test_log_probs_are_those_of_the_forward_pass(width):
    model = model_of(9)
    batch = graphs(model, 10, 1)
    captions = beam(model, batch, width, 7) if width else greedy(model, batch, 7)
    ended = 0
    for at in range(10):
        tokens = tokens_of(captions, at)
        ended += tokens[-1] == EOS
        assert EOS not in captions.words[at]
        assert len(tokens) <= 7
        assert len(tokens) == 7 or tokens[-1] == EOS
        assert captions.log_probs[at].item() == pytest.approx(log_prob(model, batch, at, tokens), abs=1e-9)
        assert captions.scores[at].item() == pytest.approx(captions.log_probs[at].item() / len(tokens))
        assert captions.attention[at].sum(1) == pytest.approx(1)
    assert 0 < ended < 10


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_best_of_all_captions(seed):
    model = model_of(4, sharp=6.0, seed=seed)
    batch = graphs(model, 3, seed)
    length = 3
    every = everything(4, length)
    found = beam(model, batch, len(every), length)
    for at in range(3):
        scores = [log_prob(model, batch, at, tokens) / len(tokens) for tokens in every]
        best = max(range(len(every)), key=scores.__getitem__)
        assert tokens_of(found, at) == every[best]
        assert found.scores[at].item() == pytest.approx(scores[best], abs=1e-12)


def plain_beam(model: GraphCaptioner, batch: GraphBatch, at: int, width: int, length: int) -> tuple[float, list[int]]:
    """One image, lists and a forward pass for every prefix."""
    alive, pool = [[]], []
    for step in range(length):
        longer = [[*words, word] for words in alive for word in range(model.spec.words)]
        kept = sorted(longer, key=lambda tokens: -log_prob(model, batch, at, tokens))[: width - len(pool)]
        done = [tokens for tokens in kept if tokens[-1] == EOS or step + 1 == length]
        pool += done
        alive = [tokens for tokens in kept if tokens not in done]
    scored = [(log_prob(model, batch, at, tokens) / len(tokens), tokens) for tokens in pool]
    return max(scored)


def test_a_narrow_beam_is_the_plain_one():
    model = model_of(6, sharp=8.0, seed=0)
    batch = graphs(model, 8, 0)
    found = beam(model, batch, 3, 5)
    assert len({len(tokens_of(found, at)) for at in range(8)}) > 3
    for at in range(8):
        score, tokens = plain_beam(model, batch, at, 3, 5)
        assert tokens_of(found, at) == tokens
        assert found.scores[at].item() == pytest.approx(score, abs=1e-12)


def test_a_caption_may_be_empty_and_searching_ends_with_it():
    model = model_of(5)
    steps = []
    step = model.step

    def ending(words, state):
        steps.append(len(words))
        logits, state = step(words, state)
        return logits + 50 * (torch.arange(5) == EOS), state

    model.step = ending
    batch = graphs(model, 3)
    for decode in (lambda: greedy(model, batch, 6), lambda: beam(model, batch, 1, 6)):
        steps.clear()
        captions = decode()
        assert captions.words == [[], [], []]
        assert [len(attention) for attention in captions.attention] == [1, 1, 1]
        assert steps == [3]
    assert beam(model, batch, 2, 6).words == [[], [], []]


def test_equals_go_to_the_smaller_id():
    model = model_of(6)
    with torch.no_grad():
        model.words.weight.zero_()
    batch = graphs(model, 2)
    assert greedy(model, batch, 3).words == [[0, 0, 0]] * 2
    assert beam(model, batch, 1, 3).words == [[0, 0, 0]] * 2
    assert beam(model, batch, 2, 2).words == [[]] * 2  # [0, 0] has the same score, a step later
    values = torch.tensor([[1.0, 3, 2, 3, 2, 2], [0, 0, 0, 0, 0, 0], [-torch.inf, 5, -torch.inf, 5, 6, -torch.inf]])
    chosen, place = _top(values, 4)
    assert place.tolist() == [[1, 3, 2, 4], [0, 1, 2, 3], [4, 1, 3, 0]]
    assert torch.equal(chosen, values.gather(1, place))


def test_images_do_not_disturb_each_other():
    model = model_of(9)
    batch = graphs(model, 8, 2)
    order = [5, 2, 7, 0, 1, 6, 4, 3]
    shuffled = replace(batch, **{name: getattr(batch, name)[order] for name in vars(batch) if name != "names"})
    for decode in (lambda given: greedy(model, given, 8), lambda given: beam(model, given, 3, 8)):
        one, other = decode(batch), decode(shuffled)
        assert [one.words[at] for at in order] == other.words
        assert torch.allclose(one.log_probs[order], other.log_probs, rtol=0, atol=1e-12)


def test_a_beam_beats_greedy_on_average_after_some_training():
    torch.manual_seed(0)
    spec = CaptionerSpec(words=12, **SIZES, **VARIANTS["rgcn_flow_memory"])
    model = GraphCaptioner(spec)
    batch = random_batch(spec, [1, 2, 3, 4] * 8, seed=3)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(25):
        loss = model.forced(batch).loss()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]
    model.eval()
    narrow, wide = greedy(model, batch, 8), beam(model, batch, 4, 8)
    assert wide.words != narrow.words
    assert wide.scores.mean() > narrow.scores.mean()


@pytest.mark.parametrize(("width", "length", "says"), [(0, 5, "decode.width: 0"), (2, 0, "decode.length: 0")])
def test_a_wrong_size_is_named(width, length, says):
    model = model_of(5)
    with pytest.raises(ConfigError, match=re.escape(f"{says}; expected 1 or more")):
        beam(model, graphs(model, 1), width, length)
    if length < 1:
        with pytest.raises(ConfigError, match=re.escape(says)):
            greedy(model, graphs(model, 1), length)
