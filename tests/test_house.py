"""The house in order: every option parses, the wheel works anywhere, docs and lists agree with the tree."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import aaca.runtime.app  # noqa: F401  registers the resolver of run folders
from aaca.runtime.cli import JOBS, options
from aaca.runtime.config import load_config, plain
from experiments.caption_config import CaptionConfig
from experiments.caption_run import without_presets
from experiments.debug_config import DebugConfig, without_size_presets
from experiments.neuron_config import NeuronsConfig, without_debug_sets
from experiments.sae_config import SaeConfig
from tests.data.test_webdataset_tars import samples, write
from tests.toys import picture_folder

ROOT = Path(__file__).parent.parent
GENERATION = ("generator", "prompts", "diffusion", "clip", "inversion", "filters")
DISCOVERY = ("attribution", "concepts", "annotator", "discovery")
SAE = ("sae", "probe")
CAPTIONS = ("graphs", "captioner", "hyper")
GROUPS = (
    "dataset",
    "model",
    "recipe",
    "trainer",
    "selector",
    "repair",
    "concept_images",
    "teacher",
    "logger",
    "resume",
    "size",
    "method",
    *GENERATION,
    *DISCOVERY,
    *SAE,
    *CAPTIONS,
)
GIVEN_FEATURES = ("coco", "vg", "ega", "path_json", "shapes")  # whose features are not made by a model of ours
UNLABELLED = ("synthetic_sparse", "cc3m")
CASES = [(group, option) for group in GROUPS for option in options(group)]
NEEDS = {
    "dataset=imagefolder": ["dataset.root=pictures"],
    "dataset=places365": ["dataset.root=places"],
    "dataset=waterbirds": ["dataset.root=birds"],
    "dataset=bffhq": ["dataset.root=faces"],
    "dataset=flowers102": ["dataset.root=flowers"],
    "dataset=food101": ["dataset.root=food"],
    "dataset=metashift": ["dataset.root=animals"],
    "dataset=cc3m": ["dataset.root=tars"],
    "dataset=cifar10": ["dataset.root=cifar"],
    "dataset=cifar100": ["dataset.root=cifar"],
    "prompts=llm_openai": ["prompts.provider.base_url=http://127.0.0.1:1/v1"],
    "prompts=llm_local": ["prompts.provider.folder=model"],
    "annotator=replay": ["annotator.file=answers.jsonl"],
    "annotator=llm": ["annotator.base_url=http://127.0.0.1:1/v1"],
    "concepts=human": ["concepts.file=concepts.csv"],
    **{f"graphs={kind}": ["graphs.root=graphs"] for kind in ("coco", "vg", "ega", "path_json")},
}


@pytest.mark.parametrize(("group", "option"), CASES)
def test_every_option_composes_and_parses(group, option, tmp_path, monkeypatch):
    if option in {"gpu", "ddp"}:
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.chdir(tmp_path)
    picture_folders(tmp_path)
    choice = f"{group}={option}"
    with initialize_config_module("aaca.conf", version_base="1.3"):
        config = compose(job_of(group, option), overrides=[choice, *NEEDS.get(choice, [])])
    if job_of(group, option) == "debug":
        parsed = load_config(plain(config), DebugConfig)
        if group == "method":
            assert parsed.method.name == option
        if group == "size":
            assert parsed.size == option
    elif job_of(group, option) == "caption":
        said = load_config(without_presets(plain(config)), CaptionConfig)
        assert said.graphs.embeds == (option not in GIVEN_FEATURES)
        if group == "captioner":
            own = OmegaConf.load(ROOT / "conf" / "captioner" / f"{option}.yaml")
            assert {name: getattr(said.captioner, name) for name in own} == own
    else:
        vectors = load_config(without_size_presets(plain(config)), SaeConfig)
        assert vectors.sae.fingerprint()["model"]
        if option == "cc3m":
            assert [name for name, _ in vectors.dataset.fingerprint()["files"]] == ["00000.tar"]


@pytest.mark.parametrize("job", ["inspect", "illusion", "edit"])
@pytest.mark.parametrize("preset", sorted(name for name in options("preset") if name.startswith("paper_")))
def test_every_preset_composes_and_parses_and_goes_before_what_a_job_says(job, preset):
    own = OmegaConf.load(ROOT / "conf" / "preset" / f"{preset}.yaml")
    with initialize_config_module("aaca.conf", version_base="1.3"):
        config = compose(job, overrides=[f"preset={preset}", "dataset.root=here"])
    for key in ("model", "recipe", "inspect", "illusion", "repair"):
        for name, value in own.get(key, {}).items():
            assert config[key][name] == value, f"{key}.{name}"
    parsed = load_config(without_debug_sets(plain(config)), NeuronsConfig)
    assert parsed.selection_rule == "best" and parsed.repair.strength == own.repair.strength


@pytest.mark.parametrize("preset", sorted(name for name in options("preset") if not name.startswith("paper_")))
def test_every_preset_of_captions_composes_and_parses_and_goes_before_what_the_job_says(preset):
    own = OmegaConf.load(ROOT / "conf" / "preset" / f"{preset}.yaml")
    chosen = {name.removeprefix("override /"): option for one in own.defaults for name, option in one.items()}
    root = ["graphs.root=graphs"] if chosen["graphs"] != "stampscenes" else []
    with initialize_config_module("aaca.conf", version_base="1.3"):
        config = compose("caption", overrides=[f"preset={preset}", *root])
    hyper = OmegaConf.load(ROOT / "conf" / "hyper" / f"{chosen['hyper']}.yaml")
    for key in ("captioner", "training"):
        for name, value in {**hyper.get(key, {}), **own.get(key, {})}.items():
            assert config[key][name] == value, f"{key}.{name}"
    parsed = load_config(without_presets(plain(config)), CaptionConfig)
    assert parsed.graphs.embeds == (not root) and (not root or parsed.graphs.kind == chosen["graphs"])


def job_of(group: str, option: str) -> str:
    """The job that reads the option."""
    if group in CAPTIONS:
        return "caption"
    if group == "dataset" and option in UNLABELLED:
        return "sae"
    return "bottleneck" if group in SAE else "debug"


def picture_folders(root: Path) -> None:
    picture_folder(root / "pictures", per_class=3)
    (root / "model").mkdir()
    (root / "model" / "config.json").write_text("{}")
    (root / "answers.jsonl").write_text("")
    (root / "concepts.csv").write_text("id,concept\n")
    for name in ("tars", "cifar", "places"):
        (root / name).mkdir()
    write(root / "tars" / "00000.tar", samples(0))
    places = root / "places"
    text = (ROOT / "conf" / "dataset" / "places365.yaml").read_text()
    names = OmegaConf.create(text).classes
    lines = [f"/{name[0]}/{name} {index}" for index, name in enumerate(names)]
    (places / "categories_places365.txt").write_text("\n".join(lines))


def test_every_option_starts_with_a_comment_that_says_what_it_is():
    for group, option in [*CASES, *(("preset", option) for option in options("preset"))]:
        assert len(options(group)[option]) > 10, f"conf/{group}/{option}.yaml"


@pytest.mark.parametrize("size", ["smoke", "demo", "full"])
@pytest.mark.parametrize("recipe", sorted(options("recipe")))
def test_every_size_goes_with_every_recipe_and_every_job_takes_size_and_seed(size, recipe):
    with initialize_config_module("aaca.conf", version_base="1.3"):
        config = compose("debug", overrides=[f"size={size}", f"recipe={recipe}", "debugset.per_class=5", "seed=3"])
        for job in set(JOBS) - {"annotate", "asg"}:  # one reads a run, and with it both; the other has use for neither
            assert compose(job, overrides=[f"size={size}", "seed=3", "paths.root=x"]).paths.root == "x"
    assert load_config(plain(config), DebugConfig).seed == 3


def test_every_relative_link_of_the_readme_and_docs_exists():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links {link}"


def test_every_method_and_selector_is_named_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    for group in ("method", "selector"):
        for option in options(group):
            assert f"`{option}`" in readme, f"README.md does not mention {group} {option}"


def test_every_job_has_a_config_and_an_app():
    for job in JOBS:
        assert (ROOT / "conf" / f"{job}.yaml").is_file()
        assert (ROOT / "experiments" / f"{job}.py").is_file()


def test_jobs_run_as_modules_from_a_checkout():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.debug", "--cfg", "job"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "s_random" in done.stdout


def test_nothing_generic_lands_beside_the_package_and_the_wheel_works_from_any_folder(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    source = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in filter(lambda name: (ROOT / name).is_file(), tracked.stdout.splitlines()):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*build, str(source)], check=True, capture_output=True, timeout=200)
    wheel = next(tmp_path.glob("*.whl"))
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    assert {path.name.split("-")[0] for path in site.iterdir()} == {"aaca"}
    for needed in ("conf/debug.yaml", "conf/method/none.yaml", "experiments/debug.py", "world/pack/manifest.json"):
        assert (site / "aaca" / needed).is_file()
    assert len(list((site / "aaca" / "world" / "pack").rglob("*.webp"))) == 300
    assert list((site / "aaca" / "evaluate").glob("*.j2"))
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'ditable' not in repr(f)]; "
        f"sys.path.insert(0, {str(site)!r}); import aaca.world; assert aaca.__file__.startswith({str(site)!r}); "
        "from aaca.world.pack import load_pack; assert len(load_pack().all) > 290; "
        "from aaca.runtime.cli import main; sys.exit(main(['debug', '--cfg', 'job']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "stampscenes" in done.stdout.lower()
