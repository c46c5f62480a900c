"""Debug sets that are made, end to end: renderer, a toy pipeline with learned tokens, dry runs, and what goes wrong."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.jobs.conftest import Run
from tests.toys import SMOKE


@pytest.fixture
def root(tmp_path, sweep) -> Path:
    """A folder with the stages that the sweep of selecting methods has made already."""
    shutil.copytree(sweep / "stages", tmp_path / "stages")
    return tmp_path


def debug_folder(root: Path, method: str) -> Path:
    files = root.glob("runs/*/outcome.json")
    return next(file.parent for file in files if json.loads(file.read_text())["method"] == method)


def test_rendered_images_go_through_filters_and_selector_into_training(run: Run, root):
    arguments = ("debug", "method=g_renderer", "debugset.oversample=1.5", *SMOKE, f"paths.root={root}")
    status, said = run(*arguments, "filters=default", "clip=tiny")
    assert status == 0, said
    folder = debug_folder(root, "g_renderer")
    outcome = json.loads((folder / "outcome.json").read_text())
    table = pd.read_parquet(folder / "debugset.parquet")
    assert outcome["n_debug"] == len(table) <= 40
    assert set(table["provenance"]) == {"synthetic"} and table["prompt"].str.startswith("a photo of ").all()
    page = (folder / "debugset.html").read_text()
    assert "a photo of a bird" in page and "third class" in page
    stage = next(path for path in root.glob("stages/debugset/*") if (path / "candidates.parquet").is_file())
    candidates = pd.read_parquet(stage / "candidates.parquet")
    funnel = json.loads((stage / "debugset.json").read_text())["funnel"]
    assert len(candidates) == 60 == sum(counts["asked"] for counts in funnel.values())
    for counts in funnel.values():
        dropped = sum(counts[name] for name in counts if name not in ("asked", "redrawn", "passed", "taken"))
        assert counts["asked"] == dropped + counts["passed"] and counts["taken"] == min(10, counts["passed"])
    assert not candidates.loc[candidates["taken"], "dropped"].any()
    status, said = run(*arguments, "filters=default", "clip=tiny")
    assert status == 0 and "finished before" in said


def test_learned_tokens_draw_through_a_pipeline_of_diffusers(run: Run, root, pipeline_folder):
    status, said = run(
        "debug",
        "method=g_tg",
        f"diffusion.model={pipeline_folder}",
        "diffusion.steps=2",
        "diffusion.batch_size=16",
        "inversion.schedule.updates=2",
        "inversion.images=4",
        "filters=none",
        "debugset.oversample=1",
        *SMOKE,
        f"paths.root={root}",
    )
    assert status == 0, said
    table = pd.read_parquet(debug_folder(root, "g_tg") / "debugset.parquet")
    assert len(table) == 40 and table["prompt"].str.fullmatch(r"a photo of a <aaca-\w+>").all()
    files = sorted(path.relative_to(path.parents[2]) for path in root.glob("stages/tokens/*/tokens/*/*"))
    assert list(map(str, files)) == [f"tokens/{label}/learned_embeds.safetensors" for label in range(4)]


def test_a_dry_run_prints_prompts_and_counts_and_leaves_nothing(run: Run, tmp_path, pipeline_folder):
    status, said = run(
        "debug",
        "method=g_llm_prompt",
        "--dry-run",
        f"diffusion.model={pipeline_folder}",
        "paths.root=here",
        "size=demo",
    )
    assert status == 0, said
    assert "a bird with a beak" in said and "600 images are drawn (150 a class)" in said
    assert len(re.findall(r" 15 ", said)) == 40
    assert [path for path in (tmp_path / "here").rglob("*") if path.is_file()] == []
    assert not list((tmp_path / "here" / "runs").iterdir())


def test_too_few_images_after_filtering_are_reported_or_fail_as_wished(run: Run, root):
    arguments = ("debug", "method=g_renderer", "filters=none", "filters.near_duplicate=0.01", *SMOKE)
    status, said = run(*arguments, f"paths.root={root}", "debugset.fill=fail")
    assert status == 1 and "debugset.fill=fail" in said and "raise debugset.oversample" in said
    status, said = run(*arguments, f"paths.root={root}")
    assert status == 1 and "no class has a candidate" in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["generator=renderer"], "debugset.candidates is pool; expected generated"),
        (["debugset.candidates=generated"], "generator: missing"),
        (["debugset.candidates=generated", "generator=renderer"], "prompts: missing"),
        (["method=g_llm", "diffusion.model=/nowhere"], "diffusion.model: no folder /nowhere"),
        (["method=g_llm", "diffusion.model=embedded:difusion"], "no embedded model 'embedded:difusion'"),
        (["method=g_llm", "diffusion.model=PIPELINE", "diffusion.scheduler=DDIMSchedular"], "DDIMScheduler"),
        (["method=g_llm", "diffusion.model=PIPELINE", "generator=nonsense"], "generator: no option 'nonsense'"),
        (["method=g_renderer", "dataset=animalscenes"], "renderer draws bird, flower, mammal, produce alone"),
        (["method=g_llm", "diffusion.model=PIPELINE", "clip.model=RN5O"], "clip.model: no folder or model 'RN5O'"),
        (["method=g_llm", "diffusion.model=PIPELINE", "filters.clip_class=200"], "filters.clip_class"),
    ],
)
def test_a_wrong_choice_is_one_line_before_any_work(run: Run, tmp_path, pipeline_folder, arguments, expected):
    arguments = [argument.replace("PIPELINE", str(pipeline_folder)) for argument in arguments]
    status, said = run("debug", *arguments, "paths.root=here")
    assert status == 1 and expected in said, said
    assert not list(tmp_path.glob("here/stages/f0/*"))
