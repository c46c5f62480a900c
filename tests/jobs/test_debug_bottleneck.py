"""The job with `repair=bottleneck`: what a discovery blames is off, controls share its stages, refusals before work."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from aaca.concepts.concept_sets import ConceptSets
from aaca.training.sparse_probe import Probe
from tests.jobs.conftest import Run, command
from tests.toys import SMOKE

CLASSES = ("bird", "flower", "mammal", "produce")
SMALL = (*SMOKE, "sae.training.epochs=2")
# so that something is blamed
LAX = ("discovery.least=5", "discovery.q=0.99", "discovery.effect=0.0", "discovery.most=1")
ORACLE = ("~discovery", "attribution=auto", "concepts=gt", "annotator=oracle", "votes.evidence=false")
SHARED = ("benchmark", "f0", "sae", "names")


@pytest.fixture(scope="module")
def repaired(tmp_path_factory) -> Path:
    """The blamed off, nothing off, and others off: three runs that share all but the layer."""
    root = tmp_path_factory.mktemp("bottleneck")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for arguments in (("bottleneck", *LAX), ("bottleneck_as_is",), ("bottleneck_random", *LAX)):
            method = f"method={arguments[0]}"
            assert command(monkeypatch, root, ["debug", method, *arguments[1:], *SMALL, f"paths.root={root}"]) == 0
    return root


def outcomes(root: Path) -> dict[str, tuple[Path, dict]]:
    found = [(file.parent, json.loads(file.read_text())) for file in root.glob("runs/*/outcome.json")]
    return {outcome["method"]: (folder, outcome) for folder, outcome in found}


def stages(root: Path, name: str) -> list[Path]:
    return sorted(path.parent for path in root.glob(f"stages/{name}/*/manifest.json"))


def reports(root: Path) -> list[tuple[Path, dict]]:
    return [(stage, json.loads((stage / "bottleneck.json").read_text())) for stage in stages(root, "refit")]


def test_three_methods_end_with_an_outcome_and_share_what_is_not_the_layer(repaired):
    found = outcomes(repaired)
    assert set(found) == {"bottleneck", "bottleneck_as_is", "bottleneck_random"}
    for _, outcome in found.values():
        assert outcome["asks_for"] == "an image-text model" and outcome["n_debug"] == 0
        assert outcome["before"] == found["bottleneck"][1]["before"]
    assert {name: len(stages(repaired, name)) for name in (*SHARED, "concept_sets", "refit")} == {
        **dict.fromkeys(SHARED, 1), "concept_sets": 1, "refit": 3,
    }  # fmt: skip
    after = {name: outcome["accuracy"] for name, (_, outcome) in found.items()}
    assert after["bottleneck_as_is"] > 0.5 > found["bottleneck"][1]["before"]["accuracy"]  # f0 has seen little, it not


def test_what_is_off_is_what_the_discovery_blamed(repaired):
    folder, _ = outcomes(repaired)["bottleneck"]
    sets = ConceptSets.load(folder / "concept_sets.yaml", CLASSES)
    assert sets.meta["annotator"] == "simulated: nobody was asked (SaeConcepts)"
    blamed = sorted({name for _, name in sets.names("confounded")})
    names = [
        re.sub(r"^\d+,|,.*$", "", line) for line in (stages(repaired, "names")[0] / "concept_names.csv").open()
    ]  # a line a latent, in order
    own = [latent for latent, name in enumerate(name.strip() for name in names) if name in blamed]
    by_count = {tuple(report["latents_off"]): (stage, report) for stage, report in reports(repaired)}
    assert len(by_count) == 3 and () in by_count
    stage, report = by_count[tuple(own)]
    assert report["off"] == blamed and report["live"] == 256
    (drawn,) = set(by_count) - {(), tuple(own)}
    assert len(drawn) == len(own) and set(drawn) != set(own)
    for latents, (stage, _) in by_count.items():
        weight = Probe.load(stage / "probe").weight
        assert not weight[:, list(latents)].any() and weight.any()
        assert weight.shape == (4, 256)


def test_a_second_run_makes_nothing_again(repaired, run: Run, tmp_path):
    arguments = ("debug", "method=bottleneck", *LAX, *SMALL)
    status, said = run(*arguments, f"paths.root={repaired}")
    assert status == 0 and "finished before; nothing has changed since" in said
    root = tmp_path / "root"
    shutil.copytree(repaired / "stages", root / "stages")
    status, said = run(*arguments, f"paths.root={root}")
    assert status == 0 and "made in" in said and re.findall(r"  made in", said) == []
    first, again = (outcomes(part)["bottleneck"][1] for part in (repaired, root))
    assert (again["accuracy"], again["groups"]) == (first["accuracy"], first["groups"])


def test_another_choice_makes_another_layer_and_no_other_autoencoder(repaired, run: Run, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(repaired / "stages", root / "stages")
    status, said = run("debug", "method=bottleneck", *LAX, *SMALL, "repair.refit=false", f"paths.root={root}")
    assert status == 0 and [name.split()[0] for name in re.findall(r"stage (.*?)  made in", said)] == [
        "refit", "features",
    ]  # fmt: skip
    stage, report = next(pair for pair in reports(root) if pair[0].name not in {s.name for s, _ in reports(repaired)})
    as_is = next(stage for stage, report in reports(repaired) if not report["latents_off"])
    weights = [Probe.load(folder / "probe").weight for folder in (stage, as_is)]
    np.testing.assert_array_equal(*weights)
    assert report["latents_off"]


def test_people_may_say_what_is_blamed(repaired, run: Run, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(repaired / "stages", root / "stages")
    status, said = run("debug", "method=bottleneck", *ORACLE, *SMALL, f"paths.root={root}")
    assert status == 0, said
    folder, _ = outcomes(root)["bottleneck"]
    assert ConceptSets.load(folder / "concept_sets.yaml", CLASSES).meta["annotator"] == "simulated: oracle"
    (_, report) = max(reports(root), key=lambda pair: pair[0].stat().st_mtime)
    assert report["off"] and report["no_latent_for"] == ["backdrop"]  # not a word of the vocabulary
    assert not (folder / "story.html").exists()  # it tells of what f0's own layers look at afterwards


def test_where_nothing_is_blamed_it_says_so(repaired, run: Run, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(repaired / "stages", root / "stages")
    status, said = run("debug", "method=bottleneck", "discovery.least=1000", *SMALL, f"paths.root={root}")
    assert status == 1 and "repair: no live concept bears a blamed name" in " ".join(said.split())
    assert not outcomes(root) and len(stages(root, "refit")) == 3 and not list(root.glob("stages/refit/.*.work"))


@pytest.mark.parametrize(("arguments", "message"), [
    (("method=bottleneck_as_is", "~clip"), "clip: missing, and this repair needs it; choose one: clip=tiny"),
    (("method=bottleneck_as_is", "~sae"), "sae: missing, and this repair needs it; choose one: sae=relu"),
    (("method=bottleneck_as_is", "~probe"), "probe: missing, and this repair needs it; choose one: probe=prox"),
    (("method=bottleneck", "~clip"), "clip: missing, and this discovery needs it; choose one: clip=tiny"),
    (("method=bottleneck", "~sae"), "sae: missing, and this discovery needs it; choose one: sae=relu"),
    (("method=s_random", "probe=prox"), "probe: given, but nothing reads it; expected repair=bottleneck"),
    (("method=s_random", "sae=relu"), "sae: given, but nothing reads it; expected discovery=sae or repair=bottleneck"),
    (("method=bottleneck_as_is", "discovery=sae"), "discovery: given, but nothing reads it; expected"),
    (("method=bottleneck", "~discovery"), "attribution: missing, and finding out why needs it"),
    (("method=bottleneck", "repair.switch_off=some"), "repair.switch_off: 'some' is not a choice"),
    (("method=bottleneck", "discovery.q=0"), "discovery.q: 0.0; expected between 0 and 1"),
    (("method=bottleneck", "discovery.least=0"), "discovery.least: 0; expected 1 or more"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line_before_any_work(arguments, message, run: Run, tmp_path):
    status, said = run("debug", *arguments, *SMOKE, f"paths.root={tmp_path}")
    assert status == 1 and message in " ".join(said.split())
    assert len(said.strip().splitlines()) == 1 and not (tmp_path / "stages").exists()
