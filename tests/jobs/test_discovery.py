"""AACA from failures to prompts inside a run; people's answers in the annotator's place; what goes wrong."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from aaca.annotate.book import AnswerBook
from aaca.annotate.exchange import to_csv
from aaca.annotate.task import Answer, Task, load_lines, save_lines
from aaca.concepts.concept_sets import ConceptSets
from tests.jobs.conftest import Run, command
from tests.toys import SMOKE

CLASSES = ("bird", "flower", "mammal", "produce")
QUICK = ("method=custom", "method.name=aaca", "selector=random", "generator=renderer", "prompts=concept_sets")
QUICK = (*QUICK, "filters=none", "debugset.candidates=generated")
WHY = ("attribution=auto", "concepts=gt", "annotator=oracle")
KEPT = ("concept_sets.yaml", "evidence.parquet", "tasks.jsonl", "pictures.jsonl", "answered.jsonl", "verdicts.csv")
KEPT = (*KEPT, "reanalysis.csv", "recovery.csv", "story.html")


@pytest.fixture(scope="module")
def discovered(sweep, tmp_path_factory) -> Path:
    """A folder with a run of method=aaca by the oracle, drawn by the renderer."""
    root = tmp_path_factory.mktemp("discovered")
    shutil.copytree(sweep / "stages", root / "stages")
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert command(monkeypatch, root, ["debug", *QUICK, *WHY, *SMOKE, f"paths.root={root}"]) == 0
    return root


def folder(root: Path) -> Path:
    return next(file.parent for file in root.glob("runs/*/concept_sets.yaml"))


def test_a_run_says_why_and_asks_for_what_breaks_it(discovered):
    found = folder(discovered)
    assert all((found / name).is_file() for name in KEPT)
    sets = ConceptSets.load(found / "concept_sets.yaml", CLASSES)
    assert sets.meta["annotator"] == "simulated: oracle"
    assert {name for name, own in sets.classes.items() if own.valid} == set(CLASSES)
    again = pd.read_csv(found / "reanalysis.csv")
    assert set(again["class"]) == set(CLASSES) and again["share_after"].between(0, 1).all()
    table = pd.read_parquet(found / "debugset.parquet")
    assert len(table) == 40 and set(table["recipe"]) >= {"valid"}
    for prompt in table["prompt"]:
        assert prompt.startswith("a photo of ")
    tasks = load_lines(found / "tasks.jsonl", Task)
    assert {task.kind for task in tasks} == {"failure", "control"}
    assert len(load_lines(found / "answered.jsonl", Answer)) == len(tasks)


def test_people_s_answers_take_the_annotator_s_place(discovered, run: Run, tmp_path):
    tasks = load_lines(folder(discovered) / "tasks.jsonl", Task)
    answers = load_lines(folder(discovered) / "answered.jsonl", Answer)
    people = [Answer(**{**vars(answer), "annotator": name}) for answer in answers for name in ("ann", "ben")]
    save_lines(tmp_path / "answers.jsonl", people)
    assert len(people) == 2 * len(tasks)
    root = tmp_path / "root"
    shutil.copytree(discovered / "stages", root / "stages")
    arguments = (*WHY[:2], "annotator=replay", f"annotator.file={tmp_path}/answers.jsonl", f"paths.root={root}")
    status, said = run("debug", *QUICK, *SMOKE, *arguments)
    assert status == 0, said
    assert ConceptSets.load(folder(root) / "concept_sets.yaml", CLASSES).meta["annotator"] == "ann, ben"
    agreement = json.loads((folder(root) / "agreement.json").read_text())
    assert agreement["people"] == 2 and agreement["answers"] == len(people)


@pytest.mark.parametrize("rival", ["conbias", "b2t"])
def test_a_discovery_that_asks_nobody(discovered, run: Run, tmp_path, rival):
    root = tmp_path / "root"
    shutil.copytree(discovered / "stages", root / "stages")
    # one of them on two ranks: what it asks for are stages, which all ranks make
    choices = ("concepts=gt", "trainer=ddp_cpu") if rival == "conbias" else ("clip=tiny", "discovery.least=1")
    status, said = run("debug", *QUICK, *SMOKE, f"discovery={rival}", *choices, f"paths.root={root}")
    assert status == 0, said
    found = folder(root)
    assert ConceptSets.load(found / "concept_sets.yaml", CLASSES).meta["annotator"].startswith("simulated: nobody")
    planted = pd.read_csv(found / "recovery.csv")
    assert planted["class"].tolist() == ["bird", "mammal", "produce"]
    assert planted["blamed"].sum() > 0 or rival == "b2t"  # the training data of twelve images a class does have the bug
    assert not (found / "tasks.jsonl").exists() and not (found / "reanalysis.csv").exists()


def test_concept_sets_by_hand_need_no_discovery(discovered, run: Run, tmp_path):
    file = folder(discovered) / "concept_sets.yaml"
    root = tmp_path / "root"
    shutil.copytree(discovered / "stages", root / "stages")
    status, said = run("debug", *QUICK, *SMOKE, f"prompts.file={file}", f"paths.root={root}")
    assert status == 0, said
    assert not list(root.glob("runs/*/concept_sets.yaml")) and len(list(root.glob("runs/*/outcome.json"))) == 1


def test_tasks_go_out_as_files_and_answers_come_back(discovered, run: Run, tmp_path):
    found = folder(discovered)
    assert run("annotate", "html", f"file={tmp_path}/page.html", f"paths.root={discovered}")[0] == 0
    assert "data:image/webp;base64," in (tmp_path / "page.html").read_text()
    save_lines(tmp_path / "a.jsonl", load_lines(found / "answered.jsonl", Answer))
    arguments = (f"run={found}", "format=csv", f"file={tmp_path}/a.csv")
    assert run("annotate", "export", f"answers={tmp_path}/a.jsonl", *arguments)[0] == 0
    status, said = run("annotate", "import", f"answers={tmp_path}/b.jsonl", *arguments)
    assert status == 0, said
    assert load_lines(tmp_path / "b.jsonl", Answer) == load_lines(tmp_path / "a.jsonl", Answer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*QUICK, *WHY[:2]), "annotator: missing, and finding out why needs it"),
        ((*QUICK, *WHY, "concepts=tags"), "clip: missing, and concepts needs it"),
        (("method=aaca", "annotator=replay", "annotator.file=none.jsonl"), "annotator.file: no file none.jsonl"),
        (("method=aaca", "prompts.weights.valid=-1.0"), "prompts.weights.valid: -1.0"),
        (("method=aaca", "evidence.q=2.0"), "evidence.q: 2.0; expected a share"),
        (("method=aaca", "votes.confounded=4.0"), "votes.confounded, votes.valid: 4.0, 3.5"),
        (("method=aaca", "attribution=occlusion", "attribution.cells=1"), "attribution.cells: 1; expected 2…64"),
        (("method=aaca", "attribution=grad_attn"), "attribution: grad_attn needs a vision transformer"),
        (("method=aaca", "prompts.file=none.yaml"), "prompts.file: no file none.yaml"),
        (("method=aaca", "prompts.file=broken.yaml"), "broken.yaml: expected a mapping with `classes`"),
        (("method=s_random", "debugset.quotas=recipe"), "debugset.quotas: recipe, but debugset.candidates is pool"),
        (("method=aaca", "dataset.masks=[]"), "concepts: GroundTruth needs what this dataset does not have: masks"),
        (
            ("method=aaca", "dataset=animalscenes", "concepts=tags"),
            "annotator: Oracle needs what this dataset does not",
        ),
        (("method=aaca", "discovery=conbias", "dataset=animalscenes"), "concepts: GroundTruth needs what this dataset"),
        (("method=g_llm", "discovery=b2t"), "discovery: given, but nothing reads it"),
        (("method=g_llm", "debugset.quotas=recipe"), "debugset.quotas: recipe, but these prompts have no recipes"),
        ((*QUICK, "discovery=conbias"), "concepts: missing, and this discovery needs it; choose one: concepts=gt"),
        ((*QUICK, "discovery=b2t"), "clip: missing, and this discovery needs it; choose one: clip=tiny"),
    ],
)
def test_mistakes_are_said_before_any_work(run: Run, tmp_path, arguments, message):
    (tmp_path / "broken.yaml").write_text("- bird")
    arguments = [entry.replace("broken.yaml", f"{tmp_path}/broken.yaml") for entry in arguments]
    other = "dataset=animalscenes" in arguments
    size = [entry for entry in SMOKE if not (other and entry.startswith("dataset."))]
    status, said = run("debug", *arguments, *size, f"paths.root={tmp_path}")
    assert status != 0 and message in " ".join(said.split()) and not list(tmp_path.glob("stages/*"))


def test_a_dry_run_says_what_it_cannot_know_yet(run: Run, tmp_path):
    status, said = run("debug", "method=aaca", "--dry-run", *SMOKE, f"paths.root={tmp_path}")
    assert status == 0 and "valid 50%, decorrelate 35%, rival_without 15%" in said and "30 images a class" in said


def test_answers_are_not_imported_under_a_running_server(discovered, run: Run, tmp_path):
    found = folder(discovered)
    answers = load_lines(found / "answered.jsonl", Answer)
    (tmp_path / "a.csv").write_text(to_csv(answers), encoding="utf-8-sig")
    arguments = ("annotate", "import", f"run={found}", f"file={tmp_path}/a.csv", f"answers={tmp_path}/b.jsonl")
    book = AnswerBook(tmp_path / "b.jsonl")
    status, said = run(*arguments)
    assert status != 0 and "somebody else is writing" in " ".join(said.split())
    book.close()
    assert run(*arguments)[0] == 0 and len(load_lines(tmp_path / "b.jsonl", Answer)) == len(answers)


def test_without_tasks_there_is_nothing_to_annotate(run: Run, tmp_path):
    status, said = run("annotate", f"paths.root={tmp_path}")
    assert status != 0 and "aaca debug method=aaca" in " ".join(said.split())
