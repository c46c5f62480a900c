"""The figures of explanations: names are text whatever they hold, bars are the values."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from scipy.sparse import csr_array

from aaca.evaluate.explain_figures import (
    agnosticity_figure,
    class_figure,
    clusters_figure,
    cosine_histogram,
    local_figure,
    plain,
    save,
)
from aaca.evaluate.explain_sets import agnosticity
from aaca.runtime.errors import DataError
from tests.evaluate.explain_toys import CLASSES, MATHS, NAMES, SCRIPT, H, image, toy_explanations


@pytest.fixture
def view():
    return toy_explanations()


def drawn(view):
    own = view.contributions[view.contributions["class"] == 1]
    first = view.local["image"].iloc[0]
    bars = view.local[(view.local["image"] == first)].drop_duplicates("rank")
    dense = np.zeros((4, H), dtype=np.float32)
    dense[:, :3] = 1
    spread = agnosticity(
        {"a": csr_array(dense), MATHS: csr_array((4, H), dtype=np.float32)}, NAMES, np.linspace(1, 0, H)
    )
    return {
        "local": local_figure(bars, image(3), MATHS, SCRIPT),
        "contribution": class_figure(own, "contribution", [image(row) for row in range(9)], CLASSES[1]),
        "strength": class_figure(
            view.strengths[view.strengths["class"] == 2], "difference", [image(row) for row in range(4)], CLASSES[2]
        ),
        "clusters": clusters_figure(view.clusters, image),
        "agnosticity": agnosticity_figure(spread, {"a": image, MATHS: image}),
        "cosines": cosine_histogram(np.linspace(0, 0.4, H), np.arange(H) != 10),
    }


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_figures_are_saved_whatever_the_names_and_the_machines_settings(view, tmp_path):
    with mpl.rc_context({"text.usetex": True}):  # TeX would stop at the first of these names
        figures = drawn(view)
        for name, figure in figures.items():
            path = save(figure, tmp_path / f"{name}.png")
            picture = np.asarray(Image.open(path).convert("L"))
            assert picture.shape[0] > 200 and (picture < 100).mean() > 0.005
            assert not any(text.get_parse_math() or text.get_usetex() for text in figure.findobj(Text))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}.png" for name in figures)


def test_figures_show_names_as_they_are(view):
    figures = drawn(view)
    shown = "\n".join(text for figure in figures.values() for text in texts(figure))
    assert f"predicted {MATHS}, in truth {SCRIPT}" in texts(figures["local"])
    assert CLASSES[1] in texts(figures["contribution"]) and CLASSES[2] in texts(figures["strength"])
    assert f"{MATHS}  #1" in shown and "$\\frac{1$ a b  #2" in shown and "<script>x(1)</scrip…  #0" in shown
    assert {"lake  #3", "lake  #4"} <= set(shown.split("\n"))  # two latents of one name are two bars
    assert "silent" in texts(figures["agnosticity"]) and MATHS in texts(figures["agnosticity"])
    assert any("11 live" in text for text in texts(figures["cosines"]))


def test_bars_of_a_figure_are_the_values(view):
    own = view.contributions[view.contributions["class"] == 0]
    axes = class_figure(own, "contribution", [image(1)], "bird").axes[0]
    assert [bar.get_width() for bar in axes.patches] == list(own["contribution"])
    assert len(axes.get_yticklabels()) == len(own)


def test_a_sheet_of_nothing_is_refused():
    with pytest.raises(DataError, match="no concept fires"):
        agnosticity_figure(agnosticity({"a": csr_array((4, H), dtype=np.float32)}, NAMES, np.zeros(H)), {"a": image})


def test_a_name_is_one_short_line():
    assert plain("a\nb\u202ec\x00") == "a b c " and plain("x" * 40) == "x" * 27 + "…"
