"""Learned tokens: names that clash with nothing, rows beside a frozen table, files that diffusers loads."""

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from aaca.models.tokens import FILE, SplicedEmbedding, expanded, mean_of_tokens, save_token, token_names
from aaca.runtime.errors import ConfigError
from tests.diffusion_toys import VOCABULARY, WIDTH, toy_diffusion


def test_names_are_slugs_in_brackets():
    assert token_names(["bird", "Art_Studio", "/a/airport terminal", "museum/indoor", "--x--"]) == [
        "<aaca-bird>",
        "<aaca-art-studio>",
        "<aaca-a-airport-terminal>",
        "<aaca-museum-indoor>",
        "<aaca-x>",
    ]


def test_no_name_begins_another_and_classes_that_share_one_are_refused():
    names = token_names(["bird", "bird 1", "birds", "bird_1_2", "b"])
    assert not [(a, b) for a in names for b in names if a != b and b.startswith(a)]
    with pytest.raises(ConfigError, match=r"^dataset: classes 'art studio' and 'Art_Studio' share token <aaca-art-stu"):
        token_names(["bird", "art studio", "Art_Studio"])


def test_a_name_stands_for_as_many_tokens_as_it_has_vectors():
    assert expanded("<aaca-bird>", 1) == ["<aaca-bird>"]
    assert expanded("<aaca-bird>", 3) == ["<aaca-bird>", "<aaca-bird>_1", "<aaca-bird>_2"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_splicing_is_one_longer_table_and_the_gradient_reaches_the_rows_alone(dtype):
    generator = torch.Generator().manual_seed(0)
    table = torch.nn.Parameter(torch.randn(11, 6, generator=generator).to(dtype))
    rows = torch.randn(3, 6, generator=generator)
    before = table.detach().clone()
    spliced = SplicedEmbedding(table, rows)
    ids = torch.tensor([[0, 10, 11], [13, 12, 5], [11, 11, 10]])
    whole = torch.cat([before.float(), rows]).requires_grad_()
    expected = F.embedding(ids, whole)
    found = spliced(ids)
    assert found.shape == (3, 3, 6) and found.dtype == dtype
    assert torch.equal(found, expected.to(dtype))
    pull = torch.randn(3, 3, 6, generator=generator).to(dtype)
    (found * pull).sum().backward()
    (expected * pull.float()).sum().backward()
    assert spliced.rows.dtype == spliced.rows.grad.dtype == torch.float32
    torch.testing.assert_close(
        spliced.rows.grad, whole.grad[11:], rtol=2e-2 if dtype == torch.bfloat16 else 1e-6, atol=0
    )
    assert table.grad is None and spliced.table.grad is None and not spliced.table.requires_grad
    assert [name for name, _ in spliced.named_parameters()] == ["rows"]
    assert list(spliced.state_dict()) == ["rows"]
    torch.optim.AdamW(spliced.parameters(), lr=0.1, weight_decay=0.5).step()
    assert torch.equal(table, before) and torch.equal(spliced.table, before)
    assert not torch.equal(spliced.rows, rows)


def test_rows_that_no_id_names_get_no_gradient():
    spliced = SplicedEmbedding(torch.randn(5, 4), torch.randn(3, 4))
    spliced(torch.tensor([[0, 6], [6, 4]])).sum().backward()
    assert spliced.rows.grad.tolist() == [[0] * 4, [2] * 4, [0] * 4]


@pytest.fixture(scope="module")
def pipeline(pipeline_folder):
    return toy_diffusion(pipeline_folder).load()


def test_the_mean_of_the_tokens_of_a_text(pipeline):
    table = pipeline.text_encoder.get_input_embeddings().weight.detach()
    ids = pipeline.tokenizer("art studio").input_ids[1:-1]
    assert len(ids) == 2
    found = mean_of_tokens("art studio", pipeline.tokenizer, table)
    torch.testing.assert_close(found, (table[ids[0]] + table[ids[1]]) / 2)
    one = pipeline.tokenizer("bird").input_ids[1]
    assert torch.equal(mean_of_tokens("bird", pipeline.tokenizer, table), table[one])
    half = mean_of_tokens("art studio", pipeline.tokenizer, table.half())
    assert half.dtype == torch.float32


def test_what_is_saved_is_what_diffusers_loads_several_classes_at_once(pipeline, tmp_path):
    """Changes the pipeline: the last test that uses it."""
    before = pipeline.text_encoder.get_input_embeddings().weight.detach().clone()
    rows = {"<aaca-bird>": torch.randn(1, WIDTH), "<aaca-art-studio>": torch.randn(3, WIDTH)}
    files = {name: save_token(tmp_path / str(index), name, values) for index, (name, values) in enumerate(rows.items())}
    for name, file in files.items():
        assert file.name == FILE
        with safe_open(file, "pt") as stored:
            assert list(stored.keys()) == [name] and stored.get_tensor(name).dtype == torch.float32
    pipeline.load_textual_inversion(list(map(str, files.values())), token=list(files))
    tokenizer, table = pipeline.tokenizer, pipeline.text_encoder.get_input_embeddings().weight.detach()
    assert torch.equal(table[:VOCABULARY], before)
    for name, values in rows.items():
        ids = tokenizer.convert_tokens_to_ids(expanded(name, len(values)))
        assert min(ids) >= VOCABULARY and len(set(ids)) == len(values)
        assert torch.equal(table[ids], values)
    studio = "<aaca-art-studio>"
    asked = pipeline.maybe_convert_prompt(f"a photo of a {studio} and a <aaca-bird>", tokenizer)
    assert asked == f"a photo of a {studio} {studio}_1 {studio}_2 and a <aaca-bird>"
    ids = tokenizer(asked).input_ids
    words = tokenizer.convert_ids_to_tokens(ids)
    assert [word for word in words if "aaca" in word] == [*expanded(studio, 3), "<aaca-bird>"]
    assert tokenizer(f"a {studio}, big").input_ids.count(tokenizer.convert_tokens_to_ids(studio)) == 1


def test_rows_of_any_precision_and_with_a_gradient_are_saved_as_float32(tmp_path):
    rows = torch.randn(2, 4).bfloat16().requires_grad_()
    with safe_open(save_token(tmp_path / "a" / "b", "<aaca-x>", rows), "pt") as stored:
        assert torch.equal(stored.get_tensor("<aaca-x>"), rows.detach().float())
