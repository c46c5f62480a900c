"""Captions: every one is true of its image; which one is a matter of the seed alone."""

import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from open_clip.tokenizer import SimpleTokenizer

from aaca.world.captions import PARTS, Content, content_of, describe, finer_name
from aaca.world.colours import colour_of, colour_word
from aaca.world.pack import load_pack
from aaca.world.scenes import draw_spec

PACK = load_pack()
KINDS = ("object", "concept")
CONTEXT = 32  # of the embedded image-text model, conf/pretrain.yaml
SPECS = [draw_spec(3, "test", "balanced", cls, index, (), 0.0) for cls in PACK.classes for index in range(40)]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        *((word, word) for word in ("red", "orange", "yellow", "green", "blue", "black", "white", "grey")),
        *((name, "red") for name in ("crimson", "#ff0010")),
        *((name, "green") for name in ("limegreen", "darkgreen", "forestgreen")),
        *((name, "blue") for name in ("navy", "royalblue", "deepskyblue")),
        *((name, "purple") for name in ("darkviolet", "indigo", "rebeccapurple")),
        *((name, "pink") for name in ("hotpink", "deeppink")),
        *((name, "brown") for name in ("saddlebrown", "maroon", "tan")),
        *((name, "grey") for name in ("dimgrey", "darkgrey")),
        ("whitesmoke", "white"),
        ("#101510", "black"),
    ],
)
def test_colours_are_called_what_the_web_calls_them(name, word):
    assert colour_word(*to_rgb(name)) == word


def test_a_cut_out_is_called_by_the_colour_of_most_of_its_pixels_or_by_none():
    """Recounted on other pixels than `colour_of` looks at."""
    generator, coloured = np.random.default_rng(0), 0
    for piece in PACK.pieces("object"):
        pixels = piece.pixels()
        seen = pixels[pixels[..., 3] > 128][:, :3] / 255
        words = [colour_word(*pixel) for pixel in generator.permutation(seen)[:600].tolist()]
        largest = max(words.count(word) for word in set(words)) / len(words)
        word = colour_of(piece)
        coloured += word is not None
        assert largest < 0.6 if word is None else words.count(word) / len(words) > 0.4, piece.path
    assert 60 < coloured < len(PACK.pieces("object"))


def test_colours_agree_with_what_people_wrote():
    texts = {piece.text: colour_of(piece) for piece in PACK.pieces("object")}
    assert texts["A green apple"] == texts["A green pepper"] == "green"
    assert texts["A red apple"] == texts["A ripe, red tomato"] == texts["Red plastic flower"] == "red"
    assert (texts["A yellow lemon"], texts["A purple pigface flower"]) == ("yellow", "purple")
    assert (texts["A male black rhino"], texts["A crow"]) == ("black", "black")


def truth(spec):
    """What every caption of this image matches that names the object, from the pack's labels and geometry alone."""
    other, relation = None, None
    if spec.concept is not None:
        other = spec.concept.piece
        relation = "left of" if spec.object.centre < spec.concept.centre else "right of"
    an = "(?:an? )?"
    colour = colour_of(spec.object.piece)
    coloured = f"{colour} {spec.cls}" if colour else spec.cls
    name = r"(?P<name>.+?)"
    thing = f"{an}(?:{spec.cls}|{coloured}|{name}(?:, a kind of {spec.cls},)?)"
    ground = spec.ground.piece.label
    parts = "|".join(PARTS[spec.cls])
    tails = [f" on {an}{ground}", f" with (?:{parts})"]
    if other is not None:
        beside = f" {relation} {an}(?:{other.label}|(?P<other>.+?))"
        tails += [beside, f" on {an}{ground}{beside}".replace("?P<other>", "?P<other2>")]
        tails += [f" with {an}{other.label}(?: on {an}{ground})?"]
    return re.compile(f"(?:a (?:photo|picture) of )?{thing}(?:{'|'.join(tails)})?")


def words_of(piece):
    return re.findall(r"[\w’]+", piece.text.lower())


def test_every_caption_is_true_of_its_image():
    labels = {*PACK.classes, *PACK.labels("scene"), *PACK.labels("concept"), "left", "right"}
    generator = np.random.default_rng(0)
    forms = {"relation": 0, "with": 0, "name": 0, "colour": 0, "kind": 0, "no concept": 0, "ground alone": 0}
    for spec in SPECS:
        content = content_of(spec)
        expected = truth(spec)
        pieces = [spec.object.piece, *([spec.concept.piece] if spec.concept else [])]
        described = [word for piece in pieces for word in words_of(piece)]
        own = {spec.cls, spec.scene, *(piece.label for piece in pieces), *described}
        if spec.concept is not None:
            own.add("left" if spec.object.centre < spec.concept.centre else "right")
        for _ in range(25):
            said = describe(content, generator)
            ground_alone = said in {spec.scene, f"a photo taken on {spec.scene}"}
            forms["ground alone"] += ground_alone
            forms["no concept"] += spec.concept is None
            if ground_alone:
                continue
            match = expected.fullmatch(said)
            assert match, f"{said!r} of {spec.cls} on {spec.scene}"
            assert not (labels & set(re.findall(r"[\w’]+", said))) - own, said
            named = match.groupdict()
            other = named.get("other") or named.get("other2")
            for text, piece in ((named["name"], spec.object.piece), (other, spec.concept and spec.concept.piece)):
                if text:
                    assert set(re.findall(r"[\w’]+", text)) <= {piece.label, *words_of(piece)}, said
            forms["relation"] += bool(re.search(r"(left|right) of", said))
            forms["with"] += " with " in said
            forms["name"] += bool(named["name"])
            forms["colour"] += f"{content.colour} {spec.cls}" in said
            forms["kind"] += "a kind of" in said
    assert min(forms.values()) > 40, forms
    assert forms["relation"] > 0.15 * 25 * len(SPECS)  # what the model has to learn is said often


def test_content_is_what_the_spec_shows():
    for spec in SPECS:
        content = content_of(spec)
        assert (content.cls, content.scene) == (spec.object.piece.label, spec.ground.piece.label)
        assert (content.concept is None) == (spec.concept is None) == (content.relation is None)
        assert (content.concept_name is None) == (spec.concept is None)
        if spec.concept is not None:
            assert content.concept == spec.concept.piece.label
            assert content.relation == ("left of" if spec.object.centre < spec.concept.centre else "right of")


def test_one_seed_one_caption_and_every_caption_costs_the_same_chance():
    contents = [content_of(spec) for spec in SPECS]
    first = [describe(content, np.random.default_rng(seed)) for seed, content in enumerate(contents)]
    assert first == [describe(content, np.random.default_rng(seed)) for seed, content in enumerate(contents)]
    assert len({describe(contents[0], np.random.default_rng(seed)) for seed in range(100)}) > 8
    for seed in range(40):
        states = set()
        for content in contents[::7]:
            generator = np.random.default_rng(seed)
            describe(content, generator)
            states.add(str(generator.bit_generator.state))
        assert len(states) == 1


def test_every_part_of_every_class_is_named():
    generator = np.random.default_rng(2)
    for cls, parts in PARTS.items():
        assert len(set(parts)) == 10
        said = " | ".join(describe(Content(cls, cls, None, "sand", None, None, None), generator) for _ in range(1500))
        assert [part for part in parts if f" with {part} |" not in said] == []
    assert set(PARTS) == set(PACK.classes)


def test_what_cannot_be_said_is_not_said():
    bare = Content("bird", "bird", None, "sand", None, None, None)
    generator = np.random.default_rng(1)
    said = {describe(bare, generator) for _ in range(500)}
    assert not [text for text in said if "None" in text or "  " in text or "kind of" in text or text != text.strip()]
    assert {"a photo of a bird on sand", "a photo of a bird", "sand"} <= said


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("An Adelaide Rosella", "adelaide rosella"),
        ("An albino peahen (a female peafowl, or peacock)", "albino peahen"),
        ("A “Granny Smith” apple", "granny smith apple"),
        ("The baby of a gnu", "baby of a gnu"),
        ("Anthurium", "anthurium"),  # not an article
        ("Sweet yellow corn", "yellow corn"),
        ("Eat your broccoli", "broccoli"),
        ("Two flowers", "flower"),
        ("Appooppan Thaadi (Indian Milkweed)", "appooppan thaadi"),
    ],
)
def test_finer_names(text, name):
    assert finer_name(text) == name


def test_every_finer_name_that_a_model_learns_is_a_noun_phrase():
    """Lower case, no sentence, no article in front."""
    for piece in [*PACK.pieces("object", split="train"), *PACK.pieces("concept", split="train")]:
        name = finer_name(piece.text)
        assert name == name.lower().strip() and "  " not in name
        assert not re.match(r"(an?|the|some|two|it|it's) ", name), f"{piece.text!r} → {name!r}"
        assert not re.search(r"[?!.“”\"()]", name), f"{piece.text!r} → {name!r}"


def test_no_caption_that_a_model_learns_is_cut_off():
    """The longest names of the train sources in every form."""
    tokens = SimpleTokenizer(context_length=200)

    def length(text):
        return len(tokens.encode(text)) + 2

    names = {kind: [finer_name(piece.text) for piece in PACK.pieces(kind, split="train")] for kind in KINDS}
    longest = {kind: max(found, key=length) for kind, found in names.items()}
    generator, most = np.random.default_rng(0), 0
    for cls in PACK.classes:
        content = Content(cls, longest["object"], "purple", "brick", "guitar", longest["concept"], "right of")
        for one in (content, replace(content, concept=None, concept_name=None, relation=None)):
            most = max(most, *(length(describe(one, generator)) for _ in range(1500)))
    assert 20 < most <= CONTEXT
