"""The jobs about neurons at smoke size: what they write agrees with itself, people's names, edits, refusals."""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from aaca.annotate.neuron_tasks import about
from aaca.annotate.task import Answer, Task, load_lines, save_lines
from aaca.concepts.concept_sets import ClassConcepts, Concept, ConceptSets
from aaca.data.benchmark import Benchmark
from aaca.data.transforms import EvalTransform, normalise
from aaca.discover.neurons.inspect import Inspection, InspectSpec
from aaca.discover.neurons.responses import Responses, score
from aaca.models.timm_model import TimmModel
from aaca.runtime.files import read_json
from experiments.neuron_names_config import NeuronNamesConfig
from tests.jobs.conftest import Run, command
from tests.toys import SMOKE

CLASSES = ("bird", "flower", "mammal", "produce")
PAGE = ("page.cards=2", "page.top=2", "page.mistakes=1", "page.images=4")
NAMED = ("inspect.classes=all", "concepts=gt", "neuron_names.by=masks", "neuron_names.least_score=0.02")
LAX = ("discovery.least_score=0.02", "repair.least_score=0.02", "neuron_names.least_score=0.02", "repair.top=2")
FAST = ("illusion.iterations=3", "illusion.copies=1")
RESNET = {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128], "stem_type": "deep", "stem_width": 8}
HEAD = {"backbone.fc.weight", "backbone.fc.bias"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """f0 trained, its neurons inspected and named by what happens without a concept: what the tests go on from."""
    folder = tmp_path_factory.mktemp("neurons")
    with pytest.MonkeyPatch.context() as patch:
        assert command(patch, folder, ["inspect", *NAMED, *SMOKE, *PAGE, f"paths.root={folder}"]) == 0
    return folder


def ran(run: Run, root: Path, job: str, *more: str) -> str:
    page = () if job == "debug" else PAGE
    status, said = run(job, *SMOKE, *page, *more, f"paths.root={root}")
    assert status == 0, said
    return said


def made(said: str) -> list[str]:
    """Kinds of stages that were made, not found."""
    return [name.split()[0] for name in re.findall(r"stage (.*?) +[0-9a-f]{8}  made in", said)]


def folder(said: str, of: str = "page") -> Path:
    """Of the run, where it says that one of its files is."""
    (file,) = re.findall(rf"^{of}: (.+)$", said, re.MULTILINE)
    return Path(file).parent


def stage_of(root: Path, name: str, **inputs: object) -> Path:
    """The one published stage of that name with these inputs."""
    found = root.glob(f"stages/{name}/*/manifest.json")
    (stage,) = (path.parent for path in found if inputs.items() <= read_json(path)["inputs"].items())
    return stage


def network(stage: Path):
    return TimmModel("resnet18", 32, kwargs=RESNET).build(4).load(stage / "model.safetensors").eval()


def looked_at(root: Path, stage: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(features `[N, D]`, predictions `[N]`) of the images of a split, straight from the network of a stage."""
    table, classifier = Benchmark.load(stage_of(root, "benchmark")).split(split), network(stage)
    pixels = torch.stack([EvalTransform(32)(table.image(row)) for row in range(len(table))]).float() / 255
    with torch.no_grad():
        features, logits = classifier.embed(normalise(pixels, classifier.mean, classifier.std))
    return features.numpy(), logits.argmax(dim=1).numpy()


def cards(run: Path) -> dict[tuple[str, str, int], str]:
    """(class, list, neuron) → text of its card on the page."""
    page = (run / "neurons.html").read_text()
    classes = dict(re.findall(r'<h2 id="(c\d+)">(\w+) ', page))
    found = re.findall(r'<article class="card[^"]*" id="(c\d+)-(\w+)-(\d+)">(.*?)</article>', page, re.DOTALL)
    return {(classes[anchor], kind, int(neuron)): text for anchor, kind, neuron, text in found}


def test_inspect_writes_a_report_a_table_a_page_and_tasks_that_agree(root):
    (run,) = (path.parent for path in root.glob("inspect/*/found.csv"))
    assert {"inspection.json", "neurons.parquet", "neurons.csv", "tasks.jsonl"} <= {file.name for file in run.iterdir()}
    found = Inspection.load(run)
    assert [report.name for report in found.reports] == list(CLASSES) and found.neurons_in_all == 128
    csv = pd.read_csv(run / "neurons.csv", keep_default_na=False)
    listed = [
        (report["name"], kind, rank, row["neuron"], pytest.approx(row["prec"]))
        for report in read_json(run / "inspection.json")["reports"]
        for kind in ("insufficient", "excessive")
        for rank, row in enumerate(report[kind], start=1)
    ]
    assert len(listed) > 8 and list(csv[["name", "list", "rank", "neuron", "prec"]].itertuples(index=False)) == listed
    stage = stage_of(root, "neuron_names", naming=asdict(NeuronNamesConfig(by="masks", least_score=0.02)), besides=[])
    names = pd.read_parquet(stage / "names.parquet").set_index("neuron")["concept"]
    assert csv["concept"].tolist() == [names.get(neuron, "") for neuron in csv["neuron"]] and any(csv["concept"])

    features, predictions = looked_at(root, stage_of(root, "f0"), "audit")
    labels = Benchmark.load(stage_of(root, "benchmark")).split("audit").labels
    rivals = {}
    for report in found.reports:
        wrong = predictions[(labels == report.label) & (predictions != report.label)]
        assert report.mistakes == len(wrong) > 0
        assert report.rivals == {CLASSES[label]: int((wrong == label).sum()) for label in set(wrong.tolist())}
        rivals[report.name] = max(report.rivals, key=lambda name, counts=report.rivals: counts[name])
    first, shown = csv[csv["rank"] <= 2], cards(run)
    tasks = load_lines(run / "tasks.jsonl", Task)
    assert [(task.class_, *about(task)) for task in tasks] == [
        (row.name, row.list, row.neuron) for row in first.itertuples(index=False) if features[:, row.neuron].max() > 0
    ]
    assert all(task.predicted == rivals[task.class_] for task in tasks)
    assert set(shown) == set(first[["name", "list", "neuron"]].itertuples(index=False, name=None))
    for row in first.itertuples(index=False):
        text = shown[row.name, row.list, row.neuron]
        assert f"<dd>{row.prec:.1f} %</dd>" in text and f"<span>{row.concept or 'unnamed'}</span>" in text


def test_people_name_neurons_and_their_last_word_counts(root, run: Run):
    said = ran(run, root, "inspect")
    asked = folder(said)
    assert set(made(said)) <= {"inspection"}  # of the worst class alone, named by nobody
    csv = pd.read_csv(asked / "neurons.csv", keep_default_na=False)
    assert set(csv["concept"]) == {""} and csv["name"].nunique() == 1
    tasks = load_lines(asked / "tasks.jsonl", Task)
    assert f"{len(tasks)} tasks for people" in said
    assert {about(task)[1] for task in tasks} <= set(csv[csv["rank"] <= 2]["neuron"])

    def says(task: Task, who: str, content: str, relevance: float) -> Answer:
        return Answer(
            task.task_id, who, task.class_, task.predicted, task.image_id, "background", content, relevance, ()
        )

    first, second = tasks[:2]
    answers = [
        says(first, "ann", "wet moss", 1), says(first, "ann", "wet moss", 1), says(first, "ann", "dry reed", 2),
        says(first, "bob", "dry reed", 1), says(second, "bob", "old wall", 4),
    ]  # fmt: skip
    save_lines(asked / "answers.jsonl", answers)
    people = ("neuron_names.by=people", f"neuron_names.answers={asked / 'answers.jsonl'}")
    said = ran(run, root, "inspect", *people)
    assert made(said) == ["neuron_names"]
    named = pd.read_csv(folder(said) / "neurons.csv", keep_default_na=False).set_index("neuron")["concept"]
    assert named[about(first)[1]] == "dry reed" and named[about(second)[1]] == "old wall"
    assert set(named.drop([about(first)[1], about(second)[1]])) == {""}
    said_so = {neuron: re.findall(r"<span>(dry reed|old wall|wet moss)</span>", text)
               for (_, _, neuron), text in cards(folder(said)).items()}  # fmt: skip
    assert said_so == {neuron: [named[neuron]] if named[neuron] else [] for neuron in said_so}
    save_lines(
        asked / "answers.jsonl", [*answers, says(first, "bob", "wet moss", 1), says(first, "ann", "wet moss", 1)]
    )
    said = ran(run, root, "inspect", *people)
    assert made(said) == ["neuron_names"]  # the same path, other answers
    named = pd.read_csv(folder(said) / "neurons.csv", keep_default_na=False).set_index("neuron")["concept"]
    assert named[about(first)[1]] == "wet moss"


def test_nothing_to_list_is_no_failure(root, run: Run):
    said = ran(run, root, "inspect", "inspect.scorer=contribution", "inspect.top_k=1", "inspect.min_prec=99")
    assert "\n0 tasks" in said and "No neuron got enough votes" in (folder(said) / "neurons.html").read_text()
    assert pd.read_csv(folder(said) / "neurons.csv").empty


def test_illusion_draws_what_is_listed_for_the_class_it_is_listed_for(root, run: Run):
    said = ran(run, root, "illusion", "illusion.neurons={mammal: [3, 17], bird: [3]}", *FAST, "illusion.copies=2")
    assert made(said)[-1] == "illusions"
    where = folder(said, "sheet")
    table = pd.read_csv(where / "illusions.csv")
    assert table[["class", "neuron"]].value_counts().to_dict() == {("mammal", 3): 2, ("mammal", 17): 2, ("bird", 3): 2}
    assert table["probability"].between(0, 1).all() and not table["failed"].any()
    images = Path(re.findall(r"^images: (.+)$", said, re.MULTILINE)[0])
    for name in table["image"]:
        with Image.open(images / name) as picture:
            assert picture.size == (32, 32)
    with Image.open(where / "illusions.png") as sheet:
        assert sheet.width > 64 and sheet.height > 3 * 32
    again = ran(run, root, "illusion", "illusion.neurons={mammal: [3, 17], bird: [3]}", *FAST, "illusion.copies=2")
    assert made(again) == []


def test_illusions_of_an_inspection_look_with_the_eyes_that_a_neuron_speaks_for(root, run: Run):
    said = ran(run, root, "inspect", *FAST, "illusion.top=1", "page.illusions=true")
    (report,) = Inspection.load(folder(said)).reports
    table = pd.read_parquet(sorted((root / "stages" / "illusions").glob("*/illusions.parquet"), key=_age)[-1])
    wanted = {(report.label, report.insufficient[0].neuron)}
    wanted |= {(CLASSES.index(next(iter(report.rivals))), report.excessive[0].neuron)}
    assert set(zip(table["label"], table["neuron"], strict=True)) == wanted
    drawn = {neuron for (_, _, neuron), text in cards(folder(said)).items() if "made up to excite it" in text}
    assert drawn == {neuron for _, neuron in wanted}


def _age(file: Path) -> int:
    return file.stat().st_mtime_ns


def test_edit_says_before_and_after_and_leaves_all_but_the_head(root, run: Run):
    said = ran(run, root, "edit", "repair.epochs=2", "repair.top=3")
    where, f0 = folder(said), stage_of(root, "f0")
    metrics, predictions = read_json(where / "metrics.json"), pd.read_parquet(where / "predictions.parquet")
    edited = Path(re.findall(r"^weights: (.+)$", said, re.MULTILINE)[0]).parent
    before, after = (load_file(each / "model.safetensors") for each in (f0, edited))
    assert {name for name in before if not torch.equal(before[name], after[name])} == HEAD
    # the networks on the images themselves
    table = Benchmark.load(stage_of(root, "benchmark")).split("test")
    own = predictions[predictions["split"] == "test"].set_index("id").loc[table.ids]
    for stage, column in ((f0, "before"), (edited, "after")):
        assert looked_at(root, stage, "test")[1].tolist() == own[column].tolist()
    headline = own[own["slice"] == "balanced"]
    assert metrics["before"]["accuracy"] == pytest.approx((headline["before"] == headline["label"]).mean())
    assert metrics["accuracy"] == pytest.approx((headline["after"] == headline["label"]).mean())
    apart = metrics["apart"]
    assert apart["before"] > 0 and apart["after"] > 0 and apart["before"] != apart["after"]
    page = (where / "neurons.html").read_text()
    change = pd.read_csv(where / "change.csv").set_index("on test")
    assert change.loc["balanced"].tolist() == pytest.approx([metrics["before"]["accuracy"], metrics["accuracy"]])
    assert change.loc["worst_group_accuracy", "after"] == pytest.approx(metrics["worst_group_accuracy"])
    right = {name: [(part[column] == label).mean() for column in ("before", "after")]
             for label, name in enumerate(CLASSES) for part in (own[own["label"] == label],)}  # fmt: skip
    for name, pair in {"accuracy (balanced)": change.loc["balanced"], **right}.items():
        (line,) = re.findall(
            rf"<tr>(?:(?!</tr>).)*>{re.escape(name)}<.*?</tr>", page[: page.index('id="classes"')], re.S
        )
        assert all(f"{100 * value:.1f}" in line for value in pair), (name, line)
    (chosen,) = read_json(where / "edit.json")["neurons"].values()
    assert len(chosen) == 3 and all(f">#{neuron}</a>" in page for neuron in chosen)
    assert sum(">edited</span>" in text for text in cards(where).values()) == 3
    first = {path.name: path.read_bytes() for path in where.iterdir() if path.suffix in (".json", ".html", ".csv")}
    again = ran(run, root, "edit", "repair.epochs=2", "repair.top=3")
    assert made(again) == [] and folder(again) == where
    assert all((where / name).read_bytes() == content for name, content in first.items() if name != "run.json")


def test_a_sweep_of_edits_makes_a_folder_each_and_shares_what_it_can(root, run: Run, tmp_path):
    shutil.copytree(root / "stages", tmp_path / "stages")
    before = {path.parent.name for path in tmp_path.glob("stages/edit/*/manifest.json")}
    methods = "repair.method=retention,project"
    status, said = run(
        "edit", "-m", methods, "repair.epochs=1", "repair.top=2", *SMOKE, *PAGE, f"paths.root={tmp_path}"
    )
    assert status == 0, said
    assert "f0" not in made(said) and made(said).count("edit") == 2
    folders = [path.parent for path in tmp_path.glob("edit/*/metrics.json")]
    assert len(folders) == 2 and len({path.read_text() for path in tmp_path.glob("edit/*/edit.json")}) == 2
    assert len({path.parent.name for path in tmp_path.glob("stages/edit/*/manifest.json")} - before) == 2


def test_concept_sets_choose_the_neurons_of_an_edit(root, run: Run, tmp_path):
    responses = Responses.load(stage_of(root, "responses"))
    place = responses.names.index("grass")
    best = np.argsort(-score(responses)[:, place], kind="stable")[:2].tolist()
    file = tmp_path / "sets.yaml"
    ConceptSets({"mammal": ClassConcepts(confounded=(Concept("grass", "background"),))}, {"annotator": "me"}).save(file)
    options = ("repair.choose=sets", f"sets={file}", "concepts=gt", "repair.top=2", "repair.least_score=0")
    said = ran(run, root, "edit", *options, "repair.method=zero")
    assert read_json(folder(said) / "edit.json")["neurons"] == {"mammal": best}
    assert made(said)[0] != "responses"
    weights = Path(re.findall(r"^weights: (.+)$", said, re.MULTILINE)[0])
    assert not load_file(weights)["backbone.fc.weight"][:, best].any()


def outcome(root: Path, method: str) -> tuple[Path, dict]:
    found = [(file.parent, json.loads(file.read_text())) for file in root.glob("runs/*/outcome.json")]
    ((where, entry),) = [pair for pair in found if pair[1]["method"] == method]
    return where, entry


def test_debug_names_blames_and_edits(root, run: Run):
    said = ran(run, root, "debug", "method=neuroinspect", *LAX, "repair.epochs=2")
    where, entry = outcome(root, "neuroinspect")
    assert "f0" not in made(said) and entry["asks_for"] == "neurons" and entry["n_debug"] == 0
    found = Inspection.load(where)
    sets = ConceptSets.load(where / "concept_sets.yaml", CLASSES)
    assert sets.meta["annotator"] == "simulated: nobody was asked (NeuronRival)" and sets.names("confounded")
    names = {concept for _, concept in sets.names("confounded")}
    assert not names & set(CLASSES)  # a class is no confounder
    main = {report.name: next(iter(report.rivals), "") for report in found.reports}
    rivals = {(name, concept.rival) for name in CLASSES for concept in sets.of(name).confounded if concept.rival}
    assert rivals and all(main[name] == rival for name, rival in rivals)
    (report,) = (read_json(path) for path in root.glob("stages/refit/*/edit.json") if read_json(path)["neurons"])
    responses = Responses.load(stage_of(root, "responses"))
    scores = score(responses)
    for name in report["neurons"]:
        blamed = [responses.names.index(concept.name) for concept in sets.of(name).confounded]
        assert blamed and scores[:, blamed].max() >= 0.02
    every = {neuron for ids in report["neurons"].values() for neuron in ids}
    columns = [responses.names.index(name) for name in names]
    assert all(scores[neuron, columns].max() >= 0.02 for neuron in every)
    assert len({tuple(ids) for ids in report["neurons"].values()}) == 1  # shared


def test_debug_edits_what_the_inspector_lists(root, run: Run, tmp_path):
    shutil.copytree(root / "stages", tmp_path / "stages")
    shutil.rmtree(tmp_path / "stages" / "refit", ignore_errors=True)
    ran(run, tmp_path, "debug", "method=edit_inspected", "inspect.classes=[produce]", "repair.top=2", "repair.epochs=2")
    _, entry = outcome(tmp_path, "edit_inspected")
    (report,) = (read_json(path) for path in tmp_path.glob("stages/refit/*/edit.json"))
    inspected = {"spec": asdict(InspectSpec(classes=["produce"]))}
    (one,) = Inspection.load(stage_of(tmp_path, "inspection", **inspected)).reports
    assert report["neurons"] == {"produce": [one.insufficient[0].neuron, one.excessive[0].neuron]}
    table = Benchmark.load(stage_of(tmp_path, "benchmark")).split("test")
    right = looked_at(tmp_path, stage_of(tmp_path, "f0"), "test")[1] == table.labels
    own = (table.frame["slice"] == "balanced").to_numpy()
    assert entry["before"]["accuracy"] == pytest.approx(right[own].mean())


def test_a_given_classifier_is_f0_and_is_not_trained(run: Run, tmp_path):
    torch.manual_seed(5)
    given = TimmModel("resnet18", 32, kwargs=RESNET).build(4)
    torch.save(given.backbone.state_dict(), tmp_path / "given.pth")
    root, weights = tmp_path / "root", f"weights={tmp_path / 'given.pth'}"
    ran(run, root, "debug", "method=edit_ce", "repair.epochs=1", weights)
    stage = stage_of(root, "f0")
    assert read_json(stage / "fit.json") == {"updates": 0, "epochs": 0, "given": str(tmp_path / "given.pth")}
    kept = load_file(stage / "model.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in given.state_dict().items())
    assert set(read_json(stage / "manifest.json")["inputs"]) == {
        "given",
        "model",
        "classes",
        "precision",
        "accelerator",
    }  # no recipe, no seed
    for arguments, reason in (
        (("weights=nowhere.pth",), "weights: no file nowhere.pth; expected a classifier's weights"),
        ((weights, "model.kwargs.stem_type=''"), "given.pth"),
    ):
        status, said = run("debug", *SMOKE, "method=edit_ce", *arguments, f"paths.root={root}")
        assert status == 1 and reason in " ".join(said.split()) and "Traceback" not in said


@pytest.mark.parametrize(("arguments", "message"), [
    (("inspect", "neuron_names.by=masks"), "concepts: missing, and neuron_names.by=masks needs it; choose one"),
    (("inspect", "neuron_names.by=clip"), "clip: missing, and neuron_names.by=clip needs it; choose one"),
    (("inspect", "neuron_names.by=people"), "neuron_names.answers: by=people and a file of answers go together"),
    (("inspect", "neuron_names.by=people", "neuron_names.answers=nowhere"), "neuron_names.answers: no file nowhere"),
    (("inspect", "weights=nowhere"), "weights: no file nowhere"),
    (("inspect", "inspect.scorer=weigth"), "inspect.scorer: 'weigth' is not a choice; nearest valid: weight"),
    (("illusion", "illusion.text=true"), "clip: missing, and illusion.text needs it; choose one: clip=tiny"),
    (("illusion", "illusion.words=flower"), "illusion.words: 'flower'; expected {} once, for the name"),
    (("edit", "repair.choose=sets"), "sets, concepts: missing, and repair.choose=sets needs both"),
    (("edit", "repair.choose=sets", "sets=nowhere", "concepts=gt"), "sets: no file nowhere"),
    (("edit", "repair.choose=listed"), "repair.neurons: choose=listed and the neurons go together"),
    (("edit", "repair=erm"), "repair._target_: 'aaca.repair.erm.TrainOn' is not a EditHead"),
    (("debug", "method=neuroinspect", "neuron_names.by=none"), "neuron_names.by: none; expected masks (concepts=gt)"),
    (("debug", "method=neuroinspect", "neuron_names.by=people"), "neuron_names.by: people; expected masks"),
    (("debug", "method=neuroinspect", "~concepts"), "concepts: missing, and neuron_names.by=masks needs it"),
    (("debug", "method=neuroinspect", "repair=erm"), "discovery: given, but nothing reads it"),
    (("debug", "method=edit_inspected", "weights=nowhere"), "weights: no file nowhere"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line_before_any_work(arguments, message, run: Run, tmp_path):
    status, said = run(*arguments, *SMOKE, f"paths.root={tmp_path}")
    assert status == 1 and message in " ".join(said.split()), said
    assert len(said.strip().splitlines()) == 1 and not (tmp_path / "stages").exists()


@pytest.mark.parametrize(("arguments", "message"), [
    (("illusion", "illusion.neurons={brid: [1]}"), "illusion.neurons: no class 'brid'; nearest valid: bird"),
    (("illusion", "illusion.neurons={bird: [128]}"), "illusion.neurons.bird: 128; expected 0…127"),
    (("edit", "repair.choose=listed", "repair.neurons={brid: [1]}"), "repair.neurons: no class 'brid'; nearest valid"),
    (("edit", "repair.choose=listed", "repair.neurons={bird: [128]}"), "repair.neurons.bird: 128; expected 0…127"),
    (("inspect", "inspect.classes=[brid]"), "inspect.classes: 'brid'; nearest valid: bird"),
])  # fmt: skip
def test_what_the_classifier_does_not_have_is_refused_in_one_line(arguments, message, root, run: Run):
    status, said = run(*arguments, *SMOKE, f"paths.root={root}")
    (line,) = [line for line in said.splitlines() if "error:" in line]
    assert status == 1 and message in line and said.endswith(f"{line}\n") and "Traceback" not in said


@pytest.mark.slow
def test_two_ranks_end_and_say_what_one_says(root, run: Run, tmp_path):
    weights = f"weights={stage_of(root, 'f0') / 'model.safetensors'}"
    said = {}
    for trainer in ("cpu", "ddp_cpu"):
        more = (weights, f"trainer={trainer}")
        for job, options in (("inspect", NAMED), ("illusion", FAST), ("edit", ("repair.epochs=2",))):
            said[job, trainer] = ran(run, tmp_path / trainer, job, *options, *more)
    for job, file in (("inspect", "inspection.json"), ("inspect", "neurons.csv"), ("edit", "metrics.json")):
        one, two = (folder(said[job, trainer]) / file for trainer in ("cpu", "ddp_cpu"))
        assert one.read_bytes() == two.read_bytes(), file
    one, two = (pd.read_csv(folder(said["illusion", name], "sheet") / "illusions.csv") for name in ("cpu", "ddp_cpu"))
    pd.testing.assert_frame_equal(one.sort_index(axis=1), two.sort_index(axis=1), rtol=1e-3, atol=1e-4)
