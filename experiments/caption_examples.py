"""The page of examples: test samples with their graphs, what is said of them and of their edited graphs."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from aaca.data.images import read_image
from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.store import PackedGraphs
from aaca.evaluate.caption_page import Example, ExampleEdit, write_examples
from aaca.evaluate.captions.control import structure_change
from aaca.evaluate.captions.structure import Parse, names_of
from aaca.runtime.seeding import purpose_seed

from .caption_edits import EditedCaptions, by_edit, picture_path
from .caption_run import CaptionRun, named


def example_page(
    run: CaptionRun, test: PackedGraphs, said: Mapping[str, str], made: list[EditedCaptions], found: dict[str, float]
) -> None:
    """Write `examples.html`: `score.examples` samples, those that allow every edit before others; and the figures."""
    options, parse, images = run.options, run.stages.parse(), run.stages.graphs()[0].folder
    if not run.first:
        return
    references, examples = test.references(), []
    for row in chosen_rows(made, options.score.examples, purpose_seed(options.seed, "examples")):
        name, graph = test.name(row), test.graph(row)
        edits = [_example_edit(one, row, graph, parse) for one in made if row in one.edits]
        image = read_image(picture_path(images, name.rpartition("_")[0]))
        examples.append(Example(name, image, graph, references[name][0], said[name], tuple(edits)))
    page = write_examples(run.folder, f"captions of {options.graphs.test}", named(found), by_edit(made), examples)
    print(f"examples: {page}")


def chosen_rows(made: list[EditedCaptions], count: int, seed: int) -> list[int]:
    """At most `count` rows that were edited: at random, those with every kind of edit before others; in order."""
    kinds = {row: sum(row in one.edits for one in made) for one in made for row in one.edits}
    rows = np.random.default_rng(seed).permutation(sorted(kinds)).tolist()
    return sorted(sorted(rows, key=lambda row: kinds[row] < len(made))[:count])


def _example_edit(one: EditedCaptions, row: int, graph: SceneGraph, parse: Parse | None) -> ExampleEdit:
    edited, edit = one.graphs[row], one.edits[row]
    names = [*names_of(edited), *([] if parse is None else free_words(graph, edited, parse(edit.after)))]
    said = None if parse is None else structure_change(edit, parse)
    return ExampleEdit(one.kind, edited_node(graph, edited), tuple(names), edit, said)


def free_words(graph: SceneGraph, edited: SceneGraph, said: SceneGraph) -> list[str]:
    """What is said of a relationship that was turned: its name no longer holds of the image, so that any word may do.

    Those of a parsed caption that stand between objects of the two names, in the new order.
    """
    names, told = ({thing.id: thing.name for thing in one.objects} for one in (edited, said))
    known = {(it.id, it.subject, it.object) for it in graph.relationships}
    turned = {
        (names[it.subject], names[it.object])
        for it in edited.relationships
        if (it.id, it.subject, it.object) not in known
    }
    return [it.name for it in said.relationships if (told[it.subject], told[it.object]) in turned]


def edited_node(graph: SceneGraph, edited: SceneGraph) -> str:
    """What is gone or turned round, in words; an object stands for its attributes and relationships, too."""
    left = {thing.id: thing for thing in edited.objects}
    names = {thing.id: f"{k + 1} {thing.name}" for k, thing in enumerate(graph.objects)}
    ends = {it.id: (it.subject, it.object) for it in edited.relationships}
    found = []
    for thing in graph.objects:
        if thing.id not in left:
            found.append(names[thing.id])
        else:
            gone = Counter(thing.attributes) - Counter(left[thing.id].attributes)
            found += [f"{word} of {names[thing.id]}" for word in gone.elements()]
    for it in graph.relationships:
        if {it.subject, it.object} <= set(left) and ends.get(it.id) != (it.subject, it.object):
            found.append(f"{names[it.subject]} {it.name} {names[it.object]}")
    return ", ".join(found)
