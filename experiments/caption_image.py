"""Your own image and its scene graph: what the captioner says."""

from pathlib import Path

import numpy as np
import pandas as pd

from aaca.data.graph_writer import ABOUT
from aaca.data.images import read_image
from aaca.data.region_describer import RegionDescriber
from aaca.data.scenegraph.batch import GraphItem, collate
from aaca.data.scenegraph.files import read_graphs
from aaca.data.scenegraph.graph import SceneGraph
from aaca.data.scenegraph.nodes import nodes_of
from aaca.data.scenegraph.vocabulary import BOS, EOS
from aaca.evaluate.graph_picture import draw_graph
from aaca.models.captioner.decode import beam, greedy
from aaca.runtime.errors import ConfigError, DataError, nearest
from aaca.runtime.files import atomic_path, read_json, write_json

from .caption_run import CaptionRun


def caption_image(run: CaptionRun) -> float:
    """Print the caption, write it with the graph's picture; returns its log-probability a step, the end's included."""
    options, stages = run.options, run.stages
    assert options.image is not None and options.asg is not None
    rgb = read_image(Path(options.image))
    graph = graph_of(Path(options.asg), None if options.region is None else str(options.region))
    check_graph(graph, options.asg, (rgb.shape[1], rgb.shape[0]))
    _, model = stages.captioner()
    words = stages.packed(options.graphs.train)[1].words
    item = item_of(run, rgb, graph)
    batch = collate([item])
    recipe = options.training
    steps = recipe.length - 1  # the begin of a caption is given
    model.eval()
    found = beam(model, batch, recipe.width, steps) if recipe.decode == "beam" else greedy(model, batch, steps)
    said, log_prob = words.decode(np.asarray(found.words[0])), float(found.log_probs[0])
    score = float(found.scores[0])
    if run.first:
        with atomic_path(run.folder / "graph.png") as temporary:
            draw_graph(rgb, graph).save(temporary, format="PNG")
        write_json(run.folder / "caption.json", {"caption": said, "log_prob": log_prob, "graph": graph.to_region()})
        print(said)
        if item.nodes.dropped.total:
            unseen = item.nodes.dropped
            print(
                f"not captioned: {unseen.objects} objects, {unseen.attributes} attributes and {unseen.relationships} "
                f"relationships beyond training.nodes={recipe.nodes}"
            )
        print(f"picture: {run.folder / 'graph.png'}")
        table = pd.DataFrame([{"caption": said, "log_prob": log_prob, "a_step": score}])
        numbers, pictures = {"log_prob": log_prob, "a_step": score}, {"graph": run.folder / "graph.png"}
        options.logger.record("caption image", numbers, {"caption": table}, pictures)
    return score


def graph_of(file: Path, region: str | None) -> SceneGraph:
    """One graph of a region JSON (region id → record). Raises `ConfigError` on a region that is not there."""
    found = read_graphs(file)
    if not found:
        raise DataError(f"{file}: no region; expected one or more")
    name = next(iter(found)) if region is None else region
    if name not in found:
        raise ConfigError(f"region: {name!r}; {nearest(name, found)}")
    return found[name]


def check_graph(graph: SceneGraph, file: str, size: tuple[int, int]) -> None:
    """Raise `DataError` with the first thing that is seriously wrong with a graph of an image of `size` (w, h)."""
    wrong = [problem.text for problem in graph.problems(size) if problem.serious]
    if wrong:
        raise DataError(f"{file}: {wrong[0]}" + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""))


def item_of(run: CaptionRun, rgb: np.ndarray, graph: SceneGraph) -> GraphItem:
    """A graph and its image as a captioner takes them: features made and rounded as those it was trained on."""
    stages = run.stages
    stage, layout = stages.graphs()
    describe = RegionDescriber.from_json(stages.embedder(), read_json(stage.folder / ABOUT)["described"])
    nodes = nodes_of(graph, run.options.training.nodes, layout.policy, layout.box_mode)
    boxes = [
        (int(x1), int(y1), int(x2) + 1, int(y2) + 1) for x1, y1, x2, y2 in nodes.boxes
    ]  # written ones are inclusive
    [(image, features)] = describe([(rgb, boxes)])
    rounded = features.astype(run.options.feature_dtype).astype(np.float32)
    return GraphItem(nodes, image.astype(np.float32), rounded, np.array([BOS, EOS]), 0)
