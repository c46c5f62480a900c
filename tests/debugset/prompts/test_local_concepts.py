"""A language model in a folder; here one that has learnt nothing."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as Joined
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from aaca.debugset.prompts.llm_concepts import LlmConcepts
from aaca.debugset.prompts.providers.local import LocalConcepts
from aaca.runtime.errors import AacaError, ConfigError

ROOM = 1600  # a byte a token


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny-gpt"
    letters = sorted(ByteLevel.alphabet())
    bpe = Tokenizer(BPE({letter: index for index, letter in enumerate([*letters, "<end>"])}, []))
    bpe.pre_tokenizer, bpe.decoder = ByteLevel(add_prefix_space=False), Joined()
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>").save_pretrained(path)
    torch.manual_seed(0)
    size = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": ROOM}
    GPT2LMHeadModel(GPT2Config(vocab_size=257, eos_token_id=256, bos_token_id=256, **size)).save_pretrained(path)
    return path


def test_a_model_that_knows_nothing_ends_in_the_clear_line(folder, tmp_path):
    provider = LocalConcepts(str(folder), max_new_tokens=12)
    with pytest.raises(AacaError) as caught:
        LlmConcepts(provider).write(["bird"], tmp_path)
    line = str(caught.value)
    assert line.startswith("prompts.provider: tiny-gpt (") and "class 'bird'" in line and "last of 4 answers" in line
    assert "\n" not in line
    assert "_loaded" not in vars(provider)
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 4


def test_the_answer_is_what_comes_after_the_question_and_always_the_same(folder):
    provider = LocalConcepts(str(folder), max_new_tokens=5)
    answer = provider.ask("bird", 3, "")
    assert answer == provider.ask("bird", 3, "") and "Class" not in answer and len(answer) <= 5


def test_a_chat_template_is_used(folder):
    provider = LocalConcepts(str(folder), max_new_tokens=2)
    tokenizer, model = provider._loaded
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[answer]"
    seen = []
    generate = model.generate
    model.generate = lambda tokens, **kwargs: seen.append(tokenizer.decode(tokens[0])) or generate(tokens, **kwargs)
    provider.ask("bird", 3, "")
    assert seen[0].startswith("[user]You list concrete") and seen[0].endswith("[answer]")


def test_a_question_that_does_not_fit(folder):
    with pytest.raises(AacaError, match=r"reads 1600 tokens; .*lower prompts\.provider\.max_new_tokens="):
        LocalConcepts(str(folder), max_new_tokens=ROOM).ask("bird", 3, "")


def test_no_model_there(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(ConfigError, match=r"^prompts\.provider\.folder: no model in .*expected a folder"):
            LocalConcepts(str(path))


def test_a_broken_model(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(
        AacaError, match=r"^prompts\.provider\.folder: .* cannot be loaded .*expected a causal"
    ) as caught:
        LocalConcepts(str(tmp_path)).ask("bird", 3, "")
    assert "\n" not in str(caught.value)


def test_impossible_settings(folder):
    with pytest.raises(ConfigError, match=r"^prompts\.provider\.max_new_tokens"):
        LocalConcepts(str(folder), max_new_tokens=0)


def test_the_fingerprint_is_of_the_files(folder):
    files = LocalConcepts(str(folder)).fingerprint()["files"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert all(len(sha) == 64 for sha in files.values())
