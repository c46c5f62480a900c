"""Toy explanations whose names and classes would be markup, mathematics or a template if taken for it."""

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from aaca.evaluate.bottleneck import predict
from aaca.evaluate.explain import global_contribution, global_strength, local
from aaca.evaluate.explain_page import Explanations, pick_rows
from aaca.evaluate.explain_sets import meta_clusters

H = 12
SCRIPT, MATHS, BROKEN = "<script>x(1)</script>", "$x_1$", "$\\frac{1$ a\nb"
NAMES = [SCRIPT, MATHS, BROKEN, "lake", "lake", "beak", "fur", "sand", "sky", "{{ 7 * 7 }}", "dead", "100%"]
CLASSES = ("bird", "<script>y(2)</script>", "$\\alpha$")


def image(row):
    return np.full((40, 40, 3), 3 * row % 256, dtype=np.uint8)


def toy_explanations() -> Explanations:
    """Sixty images of three classes, a dead concept, three wrong images, three clusters, one intervention."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    dense = np.maximum(rng.normal(0, 0.5, (60, H)), 0)
    dense[np.arange(60), labels] += 2
    dense[:, 10] = 0
    codes, weight = csr_array(dense.astype(np.float32)), rng.normal(0, 0.6, (3, H))
    weight[:, :3] += np.eye(3)
    predictions = predict(codes, weight)
    rows = pick_rows(labels, predictions, 3)
    wrong = rows[labels[rows] != predictions[rows]]
    assert len(wrong) == 3
    return Explanations(
        title="toy <b>scenes</b>",
        classes=CLASSES,
        labels=labels,
        predictions=predictions,
        nec=11.5,
        live=11,
        latents=H,
        contributions=global_contribution(codes, labels, weight, NAMES),
        strengths=global_strength(codes, labels, NAMES),
        local=pd.concat(
            [local(codes, weight, NAMES, rows), local(codes, weight, NAMES, wrong, target="true", labels=labels)]
        ),
        image=image,
        clusters=meta_clusters(codes, NAMES, 3),
        interventions=pd.DataFrame(
            {
                "name": ["none", "zero <i>lake</i>"],
                "latents": [0, 2],
                "accuracy": [0.663, 0.829],
                "balanced_accuracy": [0.7, 0.7],
                "worst_group_accuracy": [0.76, 0.337],
            }
        ),
    )
