"""Which words of a caption name which nodes."""

from aaca.data.scenegraph.layout import Layout
from aaca.data.scenegraph.mentions import mentions
from aaca.data.scenegraph.samples import GraphSet
from aaca.data.shape_grammar import write_shapes


def test_words_name_nodes_by_spans_and_longer_names_go_first():
    words = ["a", "red", "cat", "left", "of", "a", "red", "cat", "on", "the", "left"]
    names = ("cat", "red", "left of", "left", "cat", "dog", "")
    found = [sorted(own) for own in mentions(words, names)]
    assert found == [[], [1], [0, 4], [2], [2], [], [1], [0, 4], [], [], [3]]


def test_words_name_nodes_by_whole_names_only():
    words = ["a", "hot", "dog", "on", "top", "of", "a", "dogs", "dog"]
    names = ("hot dog", "dog", "dog", "on", "top of", "", "cat on top")
    assert mentions(words, names) == [set(), {0}, {0}, {3}, {4}, {4}, set(), set(), {1, 2}]
    assert mentions([], names) == [] and mentions(["a", "dog"], ()) == [set(), set()]
    assert mentions(["dog"] * 3, ("dog dog",)) == [{0}, {0}, {0}]  # spans may overlap


def test_case_does_not_matter_on_either_side():
    assert mentions(["Two", "hot", "DOGS"], ("Hot Dogs", "two")) == [{1}, {0}, {0}]


def test_no_name_of_shapes_lies_within_another(tmp_path):
    write_shapes(tmp_path, {"trn": 1, "val": 20, "tst": 1})
    source = GraphSet.open(Layout.ega(tmp_path), "val")
    assert len(source) > 60
    for row in range(len(source)):
        names, words = source.item(row).nodes.names, source.phrase(row).split()
        expected = [set() for _ in words]
        for node, name in enumerate(names):
            span = name.split()
            for at in range(len(words) - len(span) + 1):
                if words[at : at + len(span)] == span:
                    for word in expected[at : at + len(span)]:
                        word.add(node)
        assert mentions(words, names) == expected and set().union(*expected) == set(range(len(names)))
