"""The transformers form of CLIP's tokenizer gives open_clip's ids, for any text, also after a round trip."""

import random
import sys
import unicodedata

import pytest
from open_clip.tokenizer import SimpleTokenizer
from transformers import AutoTokenizer

from aaca.models.tokenizer import END, START, clean, clip_tokenizer

FIRST, LAST = 49406, 49407  # of every row of ids, in CLIP's vocabulary
HARD = [
    "",
    "   ",
    "a photo of a bird on sand left of a car",
    "A  Photo\tof\n a   BIRD ",
    "Crème brûlée, naïve, e\u0301te\u0301, Ångström, ß, ÿ",
    "😀 a 🦜 on sand 👩‍🚀 🏳️‍🌈",
    "&lt;b&gt;bird&lt;/b&gt; &amp;amp; sand &eacute;",
    "<i>&amp;eacute;</i>",
    "ﬁsh ﬂower ﬃ",
    "鳥は砂の上にいる。犬",
    "कुत्ता 개 الكلب ก็",
    "I'm sure he'll say they've won, don't you? WON'T 's",
    "plumber’s wrench — “quoted” … ‘so’",
    "12345 7,8.9 ½ ² Ⅷ ٣",
    "__under__score__ a-b/c\\d <tag> #1 @x",
    "x" * 200,
    "a bird " * 100,
    "ÃƒÂ©tÃ©",  # mended by ftfy
    "İstanbul ſ K",
    "a\u00a0b\u200bc\u2028d",
]
ASSIGNED = [
    chr(code)
    for code in range(32, sys.maxunicode)
    if unicodedata.category(chr(code)) not in ("Cn", "Cs")  # unassigned ones differ between versions of Unicode
]
USUAL = " abcdefghijklmnopqrstuvwxyzABCXYZ'.,-0123éüñÉßΩЖ"


def strange_texts(count):
    """Every third character is any of Unicode. Left out: ſ, which `regex` takes for an s after an apostrophe."""
    dice = random.Random(0)
    letters = [
        [dice.choice(ASSIGNED) if dice.random() < 0.3 else dice.choice(USUAL) for _ in range(dice.randint(0, 40))]
        for _ in range(count)
    ]
    return ["".join(text).replace("ſ", "s") for text in letters]


@pytest.mark.parametrize("context", [77, 32])
def test_ids_up_to_the_end_are_open_clip_s(context):
    theirs, own = SimpleTokenizer(context_length=context), clip_tokenizer(context)
    texts = HARD + strange_texts(400)
    expected = theirs(texts)
    padded = own([clean(text) for text in texts], padding="max_length", truncation=True).input_ids
    for text, want, got in zip(texts, expected.tolist(), padded, strict=True):
        end = want.index(LAST) + 1
        assert got[:end] == want[:end], text
        assert got[end:] == [LAST] * (context - end)  # Stable Diffusion's padding


def test_special_ids_and_the_empty_text():
    own = clip_tokenizer(32)
    assert own("").input_ids == [FIRST, LAST]
    assert own.convert_tokens_to_ids([START, END]) == [FIRST, LAST]
    assert (own.bos_token_id, own.eos_token_id, own.pad_token_id) == (FIRST, LAST, LAST)
    assert len(own) == 49408
    assert own.decode(own("a bird on sand").input_ids, skip_special_tokens=True).strip() == "a bird on sand"


def test_cleaning_is_open_clip_s_and_done_once_is_enough():
    theirs = SimpleTokenizer()
    for text in HARD + strange_texts(100):
        assert clean(text) == theirs.clean_fn(text), text
    assert clean("plumber’s") == "plumber's"


def test_a_saved_tokenizer_is_the_same(tmp_path):
    own = clip_tokenizer(24)
    own.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert loaded.model_max_length == 24
    texts = [clean(text) for text in HARD]
    options = {"padding": "max_length", "truncation": True}
    assert loaded(texts, **options).input_ids == own(texts, **options).input_ids
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id) == (LAST, FIRST, LAST)
