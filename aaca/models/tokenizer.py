"""CLIP's byte-pair tokenizer as open_clip ships it, in the form that transformers and diffusers load."""

import html
import re

import ftfy
from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(context: int) -> CLIPTokenizer:
    """Ids up to and including the end of text equal open_clip's for every `clean` text; the rest is padded with END.

    (open_clip pads with 0, Stable Diffusion 1.x with END; a causal text tower pooled at END sees no difference.)
    """
    bpe = SimpleTokenizer(context_length=context)
    vocabulary = dict(bpe.encoder)
    for foreign, own in (("<start_of_text>", START), ("<end_of_text>", END)):
        vocabulary[own] = vocabulary.pop(foreign)
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=list(bpe.bpe_ranks),
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=context,
    )


def clean(text: str) -> str:
    """What open_clip makes of a text before it is cut into tokens: mended, unescaped, one space, lower case."""
    mended = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", mended).strip().lower()
