import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from aaca.data.scenegraph.batch import GraphBatch, collate
from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.nodes import nodes_of
from aaca.models.captioner.captioner import GraphCaptioner, caption_loss, load, save
from aaca.models.captioner.decoder import GraphDecoder
from aaca.models.captioner.encoder import order_table
from aaca.models.captioner.spec import VARIANTS, CaptionerSpec
from aaca.runtime.errors import ConfigError, DataError
from tests.captioner_reference import PlainCaptioner, in_double, item_of, plain_loss, random_batch, random_graph

SIZES = {"words": 23, "features": 14, "global_features": 10, "hidden": 12, "attention": 8}
LENGTHS = (6, 2, 9, 4, 4, 1, 0)


def spec_of(variant: str, **changes) -> CaptionerSpec:
    return CaptionerSpec(**{**SIZES, "dropout": 0.0, **VARIANTS[variant], **changes})


def model_of(variant: str, **changes) -> GraphCaptioner:
    return GraphCaptioner(spec_of(variant, **changes), seed=3).double().eval()


def batch_of(seed: int = 0, lengths=LENGTHS) -> GraphBatch:
    return in_double(random_batch(CaptionerSpec(**SIZES), lengths, seed))


def permuted(batch: GraphBatch, order: list[int]) -> GraphBatch:
    """The nodes of all graphs in another order, edges and flow with them."""
    return replace(
        batch,
        features=batch.features[:, order],
        mask=batch.mask[:, order],
        types=batch.types[:, order],
        order=batch.order[:, order],
        adjacency=batch.adjacency[:, :, order][..., order],
        flow=batch.flow[:, order][..., order],
    )


def padded_to(batch: GraphBatch, nodes: int) -> GraphBatch:
    more = nodes - batch.mask.shape[1]

    def grown(tensor: Tensor, dims: int) -> Tensor:
        return torch.nn.functional.pad(tensor, (0, 0) * (tensor.dim() - 1 - dims) + (0, more) * dims)

    names = {"mask": 1, "types": 1, "order": 1, "flow": 2}
    changes = {name: grown(getattr(batch, name), dims) for name, dims in names.items()}
    changes["adjacency"] = torch.nn.functional.pad(batch.adjacency, (0, more, 0, more))
    return replace(batch, features=torch.nn.functional.pad(batch.features, (0, 0, 0, more)), **changes)


def by_steps(model: GraphCaptioner, batch: GraphBatch) -> tuple[Tensor, Tensor]:
    """Logits and attention of all steps of all captions, past their ends, one `step` at a time."""
    state, logits, attention = model.start(model.encode(batch)), [], []
    for word in batch.words[:, :-1].T:
        scores, state = model.step(word, state)
        logits.append(scores)
        attention.append(state.attention)
    return torch.stack(logits, 1), torch.stack(attention, 1)


@pytest.mark.parametrize("embed_first", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_loss_and_all_gradients_are_the_plain_ones(variant, embed_first):
    model = model_of(variant, embed_first=embed_first, relation_init="per_relation")
    plain = PlainCaptioner(model.spec).double()
    plain.load_state_dict(model.state_dict())
    batch = batch_of()
    logits = model(batch)
    expected, attention = plain.steps(batch)
    assert torch.allclose(logits[batch.word_mask], expected[batch.word_mask], rtol=0, atol=1e-12)
    assert not logits[~batch.word_mask].any()
    loss, theirs = (
        caption_loss(logits, batch.words, batch.word_mask),
        plain_loss(expected, batch.words, batch.word_mask),
    )
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-12)
    forced = model.forced(batch)
    assert forced.loss().item() == pytest.approx(theirs.item(), abs=1e-12)
    seen = forced.padded(forced.attention)
    assert torch.allclose(seen[batch.word_mask], attention[batch.word_mask], rtol=0, atol=1e-12)
    theirs.backward()
    grads = torch.autograd.grad(loss, list(model.parameters()))
    packed = torch.autograd.grad(forced.loss(), list(model.parameters()))
    truth = dict(plain.named_parameters())
    assert len(truth) == len(grads)
    for (name, _), grad, other in zip(model.named_parameters(), grads, packed, strict=True):
        assert truth[name].grad.abs().max() > 0, name
        assert torch.allclose(grad, truth[name].grad, rtol=0, atol=1e-12), name
        assert torch.allclose(other, truth[name].grad, rtol=0, atol=1e-12), name


def test_a_hole_in_the_word_mask_counts_for_nothing():
    model, batch = model_of("rgcn_flow_memory"), batch_of()
    mask = batch.word_mask.clone()
    mask[0, 2] = mask[2, 8] = mask[2, 9] = False
    holed, plain = replace(batch, word_mask=mask), PlainCaptioner(model.spec).double()
    plain.load_state_dict(model.state_dict())
    expected = plain_loss(plain(holed), holed.words, mask).item()
    assert model.forced(holed).loss().item() == pytest.approx(expected, abs=1e-12)
    assert caption_loss(model(holed), holed.words, mask).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_is_step_after_step_and_attention_adds_up(variant):
    model, batch = model_of(variant), batch_of(1)
    logits, attention = by_steps(model, batch)
    assert torch.allclose(model(batch)[batch.word_mask], logits[batch.word_mask], rtol=0, atol=1e-12)
    single = replace(
        batch, **{name: getattr(batch, name).float() for name in ("globals", "features", "flow", "adjacency")}
    )
    for weights in (attention, by_steps(model.float(), single)[1]):
        assert (weights.sum(2) - 1).abs().max() < 1e-6
        assert (weights >= 0).all()
        assert not weights[~batch.mask[:, None].expand_as(weights)].any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_and_neighbours_change_nothing(variant):
    model, batch = model_of(variant), batch_of(2)
    logits = model(batch)
    assert torch.allclose(model(padded_to(batch, 12)), logits, rtol=0, atol=1e-12)
    order = [3, 0, 6, 2, 5, 1, 4]
    tensors = {name: getattr(batch, name)[order] for name in vars(batch) if name != "names"}
    assert torch.allclose(model(replace(batch, **tensors)), logits[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_first_place_in_the_list_of_nodes_matters_and_that_only_to_flow(variant):
    model = model_of(variant)
    rng = np.random.default_rng(4)
    graphs = [random_graph(rng, 4, 3, 3) for _ in range(3)]
    batch = in_double(collate([item_of(graph, 5, model.spec, rng) for graph in graphs]))
    assert batch.mask.all()
    logits, nodes = model(batch), model.encode(batch).nodes
    order = [0, 9, 5, 8, 2, 1, 7, 3, 6, 4]
    moved = permuted(batch, order)
    assert torch.allclose(model.encode(moved).nodes, nodes[:, order], rtol=0, atol=1e-12)
    assert torch.allclose(model(moved), logits, rtol=0, atol=1e-12)
    swapped = (model(permuted(batch, [9, 1, 2, 3, 4, 5, 6, 7, 8, 0])) - logits).abs().max()
    assert swapped > 1e-4 if model.spec.flow else swapped < 1e-12


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_direction_of_a_relation_is_seen_with_edges_alone(variant):
    model = model_of(variant)
    rng = np.random.default_rng(5)
    graph = random_graph(rng, 3, 2, 2)
    relations = tuple(replace(it, subject=it.object, object=it.subject) for it in graph.relationships)
    item = item_of(graph, 5, model.spec, rng)
    turned = replace(item, nodes=nodes_of(SceneGraph(graph.objects, relations)))
    one, other = (model(in_double(collate([it]))) for it in (item, turned))
    if model.spec.edges:
        assert (one - other).abs().max() > 1e-4
    else:
        assert torch.equal(one, other)


@pytest.mark.parametrize("variant", VARIANTS)
def test_types_and_attribute_order_are_seen_with_roles_alone(variant):
    model, batch = model_of(variant), batch_of(6)
    logits = model(batch)
    for changed in (replace(batch, types=(batch.types + 1) % 3), replace(batch, order=batch.order + 2)):
        apart = (model(changed) - logits).abs().max()
        assert apart > 1e-4 if model.spec.role else apart == 0


def test_roles_multiply_features_with_type_plus_sinusoid():
    table = order_table(6).double()
    assert table.shape == (20, 6)
    assert not table[0].any()
    assert torch.equal(table[1], torch.tensor([0.0, 1, 0, 1, 0, 1], dtype=torch.float64))
    angles = torch.tensor([3 / 10_000 ** (d // 2 * 2 / 6) for d in range(6)])
    expected = [float(angle.cos() if d % 2 else angle.sin()) for d, angle in enumerate(angles)]
    assert table[4].tolist() == pytest.approx(expected, abs=1e-6)
    model, batch = model_of("node_role"), batch_of()
    with pytest.raises(DataError, match="20 attributes; the order table ends at 19"):
        model(replace(batch, order=batch.order.masked_fill(batch.types == 0, 20)))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("half", [None, torch.bfloat16, torch.float16])
def test_a_graph_without_nodes_is_told_from_its_image(variant, half):
    model = GraphCaptioner(spec_of(variant))
    rng = np.random.default_rng(7)
    items = [item_of(graph, 3, model.spec, rng) for graph in (SceneGraph((), ()), random_graph(rng, 2, 1, 1))]
    batch = collate(items)
    with torch.autocast("cpu", dtype=half, enabled=half is not None):
        forced = model.forced(batch)
        loss = forced.loss()
    loss.backward()
    assert torch.isfinite(forced.logits).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    attention = forced.padded(forced.attention)
    assert not attention[0].any()
    assert (attention[1].sum(1) - 1).abs().max() < 1e-5
    assert not attention[1, :, ~batch.mask[1]].any()
    with torch.no_grad():
        exact = caption_loss(model(batch), batch.words, batch.word_mask)
    assert loss.item() == pytest.approx(exact.item(), rel=2e-2)


def test_nodes_are_rewritten_as_the_formula_says_and_kept_without_attention():
    model, batch = model_of("rgcn_flow_memory"), batch_of(8)
    state = model.start(model.encode(batch))
    first = (batch.mask[:, :1] & (torch.arange(batch.mask.shape[1]) == 0)).double()
    assert torch.equal(state.attention, first)
    _, after = model.step(batch.words[:, 0], state)
    i, decoder = 3, model.decoder
    for node in range(batch.mask.shape[1]):
        both = torch.cat([after.language_hidden[i], state.nodes[i, node]])
        erase, add = decoder.rewrite(both).split(model.spec.hidden)
        share = after.sentinel[i] * after.attention[i, node]
        expected = state.nodes[i, node] * (1 - share * erase.sigmoid()) + share * add
        assert torch.allclose(after.nodes[i, node], expected, rtol=0, atol=1e-13)
        assert torch.allclose(after.keys[i, node], decoder.key(expected), rtol=0, atol=1e-13)
        assert torch.equal(after.nodes[i, node], state.nodes[i, node]) is not bool(batch.mask[i, node])
    assert ((after.beta > 0) & (after.beta < 1)).all()
    assert torch.allclose(after.choice.sum(1), torch.ones(len(LENGTHS), dtype=torch.float64))


def test_parameters_at_coco_size():
    with torch.device("meta"):
        model = GraphCaptioner(CaptionerSpec(words=10_942))
    parts = {"encoder.whole": 1.31, "encoder": 4.73 + 1.31, "words": 5.60, "decoder": 7.35 + 0.53 + 0.53 + 1.05 + 0.26}
    for name, expected in parts.items():
        assert count(model.get_submodule(name)) == pytest.approx(expected * 1e6, abs=2e4)
    assert count(model) == pytest.approx(21.35e6, abs=5e4)


def test_parameters_of_visual_genomes_encoder():
    with torch.device("meta"):
        model = GraphCaptioner(CaptionerSpec(words=100, embed_first=False))
    assert count(model.encoder) - count(model.encoder.whole) == pytest.approx(9.18e6, abs=1e4)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_weights_start_as_released():
    spec = CaptionerSpec(words=11, features=64, global_features=8, hidden=64, attention=8)
    model = GraphCaptioner(spec)
    for cell in (model.decoder.attention_lstm, model.decoder.language_lstm):
        for weight in (cell.weight_ih, cell.weight_hh):
            gram = weight.T @ weight if weight.shape[0] >= weight.shape[1] else weight @ weight.T
            assert torch.allclose(gram, torch.eye(len(gram)), atol=1e-5)
        assert not cell.bias_hh.any()
        assert torch.equal(cell.bias_ih, torch.repeat_interleave(torch.tensor([0.0, 1, 0, 0]), 64))
    assert model.words.weight.abs().max() <= 1 / 8
    assert model.words.weight.abs().max() > 0.9 / 8
    upstream = GraphCaptioner(replace(spec, relation_init="upstream"))
    for net, bound in ((model, (12 / 128) ** 0.5), (upstream, (12 / (64 * 64 + 6 * 64)) ** 0.5)):
        for layer in net.encoder.layers:
            assert 0.95 * bound < layer.relations.abs().max() <= bound
            assert 0.95 * (12 / 128) ** 0.5 < layer.own.abs().max() <= (12 / 128) ** 0.5


def test_weights_come_from_the_seed_alone():
    before = torch.get_rng_state()
    one, same, other = (GraphCaptioner(spec_of("rgcn"), seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["words.weight"], other["words.weight"])


def test_dropout_is_on_the_output_alone(monkeypatch):
    model, batch = model_of("rgcn_flow_memory", dropout=0.5), batch_of()
    told = []
    attend = GraphDecoder.attend
    monkeypatch.setattr(GraphDecoder, "attend", lambda *args: told.append(attend(*args)) or told[-1])
    calm = model(batch)
    torch.manual_seed(0)
    loud = model.train()(batch)
    half = len(told) // 2
    for one, other in zip(told[:half], told[half:], strict=True):
        assert torch.equal(one.language_hidden, other.language_hidden)
        assert torch.equal(one.nodes, other.nodes)
    assert (loud - calm).abs().max() > 1e-3
    hidden = torch.linalg.lstsq(model.words.weight, loud[batch.word_mask].T).solution
    assert 0.3 < (hidden.abs() < 1e-9).double().mean() < 0.7
    assert sum(isinstance(module, torch.nn.Dropout) for module in model.modules()) == 1


def test_gradients_reach_the_features_twice():
    model, batch = model_of("rgcn_flow_memory"), batch_of(lengths=(3, 1))
    features = batch.features.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model.forced(replace(batch, features=features)).loss(), features, create_graph=True)
    (slope**2).sum().backward()
    assert model.decoder.query.weight.grad.abs().max() > 0
    assert not features.grad[~batch.mask].any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_model_comes_back(variant, tmp_path):
    model, batch = GraphCaptioner(spec_of(variant), seed=5).eval(), random_batch(spec_of(variant), LENGTHS)
    save(model, tmp_path)
    again = load(tmp_path).eval()
    assert again.spec == model.spec
    assert torch.equal(again(batch), model(batch))


def test_what_is_no_saved_model_is_refused(tmp_path):
    with pytest.raises(DataError, match=re.escape("captioner.json: not a captioner's page")):
        load(tmp_path)
    save(GraphCaptioner(spec_of("rgcn")), tmp_path)
    page = (tmp_path / "captioner.json").read_text()
    (tmp_path / "captioner.json").write_text(page.replace('"words": 23', '"words": 24'))
    with pytest.raises(DataError, match="not this captioner's tensors"):
        load(tmp_path)
    (tmp_path / "captioner.json").write_text(page.replace('"words": 23', '"words": 1'))
    with pytest.raises(DataError, match=re.escape("captioner.words: 1; expected 3 or more")):
        load(tmp_path)
    (tmp_path / "captioner.json").write_text(page)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(DataError, match=r"not the file that captioner\.json is of"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("words", 2, "2; expected 3 or more"),
        ("features", 0, "0; expected 1 or more"),
        ("hidden", -1, "-1; expected 1 or more"),
        ("layers", 0, "0; expected 1 or more"),
        ("dropout", 1.0, "1.0; expected 0 or more and below 1"),
        ("relation_init", "up_stream", "'up_stream'; nearest valid: upstream"),
    ],
)
def test_a_wrong_size_is_named(name, value, says):
    with pytest.raises(ConfigError, match=re.escape(f"captioner.{name}: {says}")):
        spec_of("rgcn", **{name: value})


def test_features_of_another_width_are_named():
    with pytest.raises(DataError, match=re.escape("features of width (14, 10); the captioner takes (14, 11)")):
        model_of("rgcn", global_features=11)(batch_of())
