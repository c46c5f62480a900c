"""How different a captioner's captions of one image are, each of another part of what it is asked to say."""

from collections import defaultdict

from aaca.data.scenegraph.edits import sample_subgraphs, subgraph
from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.store import PackedGraphs
from aaca.evaluate.captions.cider import CiderIndex
from aaca.evaluate.captions.diversity import diversity
from aaca.models.captioner.captioner import GraphCaptioner
from aaca.runtime.seeding import purpose_seed
from aaca.runtime.stages import Stage

from .caption_edits import EditedGraphs
from .caption_stages import CaptionStages


def diverse_captions(
    stages: CaptionStages, fitted: Stage, model: GraphCaptioner, test: PackedGraphs, index: CiderIndex
) -> dict[str, float]:
    """Div-1, Div-2 and SelfCIDEr of what is said of up to `score.diversity` distinct sub-graphs of an image.

    They are parts of its largest graph. `diversity_images` counts the images, `diversity_captions` their captions,
    `diversity_left_out` the images whose largest graph has fewer than two sub-graphs.
    """
    options, layout = stages.options, stages.graphs()[1]
    parts = {row: _parts(stages, test, row) for row in largest_graphs(test)}
    rows = [row for row, graphs in parts.items() if len(graphs) > 1 for _ in graphs]
    counts = {
        "diversity_images": float(len(set(rows))),
        "diversity_captions": float(len(rows)),
        "diversity_left_out": float(len(parts) - len(set(rows))),
    }
    if not rows:
        return counts
    graphs = [graph for row in dict.fromkeys(rows) for graph in parts[row]]
    asked = EditedGraphs(test, rows, graphs, layout, options.training.nodes)
    frame = stages.captions(fitted, model, options.graphs.test, asked, asked.content)
    said: dict[str, list[str]] = defaultdict(list)
    for name, caption in zip(frame["name"], frame["caption"], strict=True):
        said[name].append(str(caption))
    return {**diversity(said, index), **counts}


def largest_graphs(test: PackedGraphs) -> list[int]:
    """Of each image the sample whose graph has the most nodes, the first of several."""
    found: dict[str, tuple[int, int]] = {}
    for row in range(len(test)):
        image, total = test.name(row).rpartition("_")[0], test.graph(row).counts().total
        if image not in found or total > found[image][0]:
            found[image] = (total, row)
    return [row for _, row in found.values()]


def _parts(stages: CaptionStages, test: PackedGraphs, row: int) -> list[SceneGraph]:
    # of the nodes that the captioner is shown
    shown = subgraph(test.graph(row), test.item(row).nodes.owners)
    if not shown.objects:
        return []
    seed = purpose_seed(stages.options.seed, "diversity", test.name(row))
    return list(dict.fromkeys(sample_subgraphs(shown, stages.options.score.diversity, seed)))
