"""The jobs around sparse autoencoders at smoke size: files and tables, stages shared, sources of vectors, errors."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.sparse import load_npz

from aaca.data.embeddings import EmbeddingStore
from aaca.data.synthetic_sparse import SyntheticSparse
from aaca.evaluate.sparse import mcc, mmcs
from aaca.runtime.files import read_json
from aaca.training.sparse_probe import Probe
from experiments.sae_stages import load_sae
from tests.data.test_webdataset_tars import encoded, write
from tests.jobs.conftest import Run, command

SMALL = ("size=smoke", "trainer=cpu", "sae.training.epochs=2", "intervene.controls=2", "explain.clusters=3")
PLANTED = ("dataset=synthetic_sparse", "dataset.n=3000", "trainer=cpu", "sae.training.epochs=2")
COUNTS = {"train": 160, "pool": 160, "audit": 120, "test": 144, "test_seen": 144}
LATENTS = 256


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Embedded, an autoencoder trained, its latents named and a probe fitted: what the other jobs go on from."""
    folder = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        for job in ("features", "name", "bottleneck"):
            assert command(patch, folder, [job, *SMALL, f"paths.root={folder}"]) == 0
    return folder


def stages(root: Path, name: str) -> list[Path]:
    return sorted(path.parent for path in root.glob(f"stages/{name}/*/manifest.json"))


def folder(root: Path, job: str, part: str = "") -> Path:
    (found,) = root.glob(f"{job}/*{part}*")
    return found


def files(where: Path) -> set[str]:
    return {path.name for path in where.iterdir() if path.is_file() and path.name[0] != "."}


def made(said: str) -> list[str]:
    """Stages that were made, not found."""
    return re.findall(r"stage (.*?) +[0-9a-f]{8}  made in", said)


def ran(run: Run, root: Path, job: str, *more: str) -> str:
    status, said = run(job, *SMALL, *more, f"paths.root={root}")
    assert status == 0, said
    return said


def refused(run: Run, job: str, *arguments: str) -> str:
    """The one line that a job ends with."""
    status, said = run(job, *arguments)
    assert status == 1
    (line,) = [line for line in said.splitlines() if not re.search(r"stage \w+ .* [0-9a-f]{8}", line) and line.strip()]
    return line


def test_features_embeds_every_split_and_a_second_run_finds_all(root, run):
    said = ran(run, root, "features")
    assert made(said) == []
    table = pd.read_csv(folder(root, "features") / "features.csv")
    assert dict(zip(table["split"], table["vectors"], strict=True)) == COUNTS and set(table["size"]) == {128}
    assert all(split in said for split in COUNTS)
    store = EmbeddingStore.open(Path(table["folder"][0])).verify()
    assert (store.n, store.dim, store.dtype) == (160, 128, "float16") and np.bincount(store.labels).tolist() == [40] * 4
    assert store.content.startswith(str(table["content"][0]))
    assert abs(store.mean_norm - 1) > 1  # as the tower gives them, not of length 1


def test_sae_says_what_the_autoencoders_are_worth(root, run):
    said = ran(run, root, "sae")
    assert made(said) == [] and "explained_variance" in said
    where = folder(root, "sae")
    assert files(where) == {"sae.csv", "resampled.json"}
    (row,) = pd.read_csv(where / "sae.csv").to_dict("records")
    assert row["latents"] == LATENTS and row["l0_mean"] == 8 and 0 < row["explained_variance"] < 1
    (stage,) = stages(root, "sae")
    sae, scaling = load_sae(stage)
    assert sae.latents == LATENTS and f"autoencoders: {stage}" in said
    stores = [EmbeddingStore.open(part / "store") for part in stages(root, "embeddings")]
    learnt = [store for store in stores if store.about["rows"] in ("train", "pool")]
    rows = np.concatenate([store.gather(np.arange(store.n)) for store in learnt])
    assert float(scaling(torch.from_numpy(rows)).norm(dim=1).mean()) == pytest.approx(128**0.5, rel=1e-3)


def test_two_seeds_train_in_one_pass_and_say_how_alike_they_are(root, run):
    said = ran(run, root, "name", "sae.repeats=2")
    assert [name.split()[0] for name in made(said)] == ["sae", "codes", "names", "codes"]
    where = folder(root, "name", "repeats")
    summary = pd.read_csv(where / "names.csv").iloc[0]
    (against,) = read_json(where / "stability.json")["against"]
    assert against["seed"] == 1 and summary["cosine_between_seeds"] == pytest.approx(against["cosine"])
    assert 0 < against["cosine"] < 1 and 0 <= against["same_name"] <= 1
    said = ran(run, root, "sae", "sae.repeats=2")
    assert pd.read_csv(folder(root, "sae", "repeats") / "sae.csv")["seed"].tolist() == [0, 1] and made(said) == []


def test_name_names_all_latents_and_says_whether_it_is_right(root, run):
    said = ran(run, root, "name")
    assert made(said) == [] and "the surest names" in said
    (where,) = [path for path in root.glob("name/*") if "repeats" not in path.name]
    wanted = {"names.csv", "names.parquet", "concept_names.csv", "duplicates.csv", "stability.json", "check.parquet"}
    assert files(where) == {*wanted, "purity.csv"}
    names = pd.read_parquet(where / "names.parquet")
    assert names["latent"].tolist() == np.repeat(np.arange(LATENTS), 5).tolist()
    summary = pd.read_csv(where / "names.csv").iloc[0]
    codes = [load_npz(path / "codes.npz") for path in stages(root, "codes")]
    live = {int((np.bincount(part.indices, minlength=LATENTS) > 0).sum()) for part in codes if part.shape[0] == 160}
    assert summary["latents"] == LATENTS and summary["live"] in live
    purity = pd.read_csv(where / "purity.csv")
    assert {"grass", "bird"} <= set(purity["concept"]) and summary["right"] == pytest.approx(purity["right"].mean())
    lines = (where / "concept_names.csv").read_text().splitlines()
    assert len(lines) == LATENTS and lines[3].startswith("3,")


def test_bottleneck_says_accuracy_and_how_few_concepts_it_decides_by(root, run):
    said = ran(run, root, "bottleneck")
    assert made(said) == [] and "test_worst_group_accuracy" in said
    where = folder(root, "bottleneck")
    assert files(where) == {"bottleneck.csv", "bottleneck.json"}
    (row,) = pd.read_csv(where / "bottleneck.csv").to_dict("records")
    probe = Probe.load(stages(root, "probe")[0] / "probe")
    assert row["nec"] == np.count_nonzero(probe.weight) / 4 < LATENTS
    assert read_json(where / "bottleneck.json")["zeros"]["0"] == (probe.weight == 0).sum()
    test = [store for store in map(stored, stages(root, "embeddings")) if store.about["rows"] == "test"][0]
    sae, scaling = load_sae(stages(root, "sae")[0])
    with torch.no_grad():
        codes = sae.encode(scaling(torch.from_numpy(test.gather(np.arange(test.n))))).numpy()
    right = probe.logits(codes).argmax(axis=1) == test.labels
    assert row["test_accuracy"] == pytest.approx(right.mean())
    worst = pd.Series(right).groupby(test.groups).mean().min()
    assert row["test_worst_group_accuracy"] == pytest.approx(worst) and worst < row["test_accuracy"]
    at = {name: value for name, value in row.items() if name.startswith("accuracy_at_")}
    assert at and row["anec"] == pytest.approx(np.mean(list(at.values())))


def stored(stage: Path) -> EmbeddingStore:
    return EmbeddingStore.open(stage / "store")


def test_explain_writes_tables_figures_and_a_page(root, run):
    said = ran(run, root, "explain", "explain.images=4")
    assert made(said) == []
    where = folder(root, "explain")
    tables = ("local", "global_strength", "global_contribution", "class_contributions", "agnosticity")
    for name in (*tables, "cluster_words", "cluster_members"):
        assert len(pd.read_parquet(where / f"{name}.parquet")), name
    assert f"page: {where / 'explanations.html'}" in said
    page = (where / "explanations.html").read_text()
    assert "produce" in page and "data:image" in page
    kinds = [re.sub(r"_\d+$", "", path.stem) for path in (where / "figures").glob("*.png")]
    counts = {"local": 4, "global_contribution": 4, "global_strength": 4, "clusters": 1, "agnosticity": 1, "cosines": 1}
    assert {kind: kinds.count(kind) for kind in set(kinds)} == counts
    for path in (where / "figures").glob("*.png"):
        with Image.open(path) as image:
            assert image.convert("L").getextrema()[0] < 200


def test_intervene_compares_what_is_off_with_random_concepts_and_with_a_new_probe(root, run):
    first = ran(run, root, "intervene", "intervene.names=[gras*]")
    assert len(made(first)) == 3  # probes without: the chosen, and two controls
    said = ran(run, root, "intervene", "intervene.names=[gras*]")
    assert made(said) == []
    table = pd.read_csv(folder(root, "intervene", "gras") / "interventions.csv").set_index("name")
    names = ["as it is", "zero: gras*", "refitted without", "random, mean of 2", "random, refitted without, mean of 2"]
    assert table.index.tolist() == names and all(name in said for name in names)
    bottleneck = pd.read_csv(folder(root, "bottleneck") / "bottleneck.csv").iloc[0]
    for name in ("accuracy", "worst_group_accuracy", "balanced_accuracy"):
        assert table.loc["as it is", name] == pytest.approx(bottleneck[f"test_{name}"])
    (where,) = [path for path in root.glob("name/*") if "repeats" not in path.name]
    frame = pd.read_parquet(where / "names.parquet").query("rank == 1")
    chosen = int(((frame["word"] == "grass") & (frame["density"] > 0)).sum())
    assert table["latents"].tolist() == [0, *[chosen] * 4] and chosen > 1
    assert table.loc["zero: gras*", "accuracy"] != table.loc["as it is", "accuracy"]


@pytest.mark.parametrize("way", ["latents=[3,5,8,9]", "text=[grass]", "sets=sets.yaml"])
def test_concepts_are_chosen_in_other_ways(way, root, run, tmp_path):
    (tmp_path / "sets.yaml").write_text(SETS)
    more = ("intervene.least_cosine=0.05", "intervene.refit=false", "intervene.kind=mask")
    said = ran(run, root, "intervene", f"intervene.{way}", *more)
    assert made(said) == []
    table = pd.read_csv(folder(root, "intervene", way.split("=")[0]) / "interventions.csv").set_index("name")
    assert len(table) == 3 and table["latents"].iloc[1] > 0 and table.index[1].startswith("mask: ")


SETS = ""


# ---- other vectors --------------------------------------------------------------------------------------------------


def test_planted_vectors_and_how_many_directions_are_found_again(run, tmp_path):
    status, said = run("sae", *PLANTED, "dataset.dim=16", "dataset.atoms=24", "sae.holdout=0", f"paths.root={tmp_path}")
    assert status == 0, said
    (row,) = pd.read_csv(folder(tmp_path, "sae") / "sae.csv").to_dict("records")
    planted = SyntheticSparse(n=3000, dim=16, atoms=24).dictionary().T
    atoms = load_sae(stages(tmp_path, "sae")[0])[0].atoms.detach().numpy().T
    assert row["mmcs"] == pytest.approx(mmcs(planted, atoms)) and row["mcc"] == pytest.approx(mcc(planted, atoms))
    assert 0.3 < row["mcc"] <= row["mmcs"] < 1 and {"mmcs", "mcc", "recovered"} <= set(re.findall(r"\w+", said))
    assert row["latents"] == 32
    assert "named by words" in refused(run, "name", *PLANTED, f"paths.root={tmp_path}")


def test_two_processes_train_one_autoencoder_and_print_one_table(run, tmp_path):
    status, said = run("sae", *PLANTED, "trainer=ddp_cpu", "sae.holdout=0.5", f"paths.root={tmp_path}")
    assert status == 0, said
    assert said.count("explained_variance") == 1 and len(made(said)) == 2
    (row,) = pd.read_csv(folder(tmp_path, "sae") / "sae.csv").to_dict("records")
    (stage,) = stages(tmp_path, "sae")
    assert read_json(stage / "manifest.json")["inputs"]["devices"] == 2
    updates = pd.read_csv(stage / "log" / "metrics.csv")["updates"].tolist()
    assert updates == [1500 // 2 // 256, 2 * (1500 // 2 // 256)]
    # what it is worth is measured on all vectors held out, not on one process's share
    sae, scaling = load_sae(stage)


def test_tars_are_embedded_and_named_and_what_cannot_be_read_is_listed(run, tmp_path):
    tars = tmp_path / "tars"
    tars.mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        members = [(f"{number}{row:03d}.png", picture(rng)) for row in range(30)]
        write(tars / f"{number:05d}.tar", [*members, ("broken.jpg", b"GIF but not really"), ("a.txt", b"text")])
    given = ("dataset=cc3m", f"dataset.root={tars}", *SMALL, "sae.training.batch_size=16", f"paths.root={tmp_path}")
    status, said = run("features", *given)
    assert status == 0 and made(said) == ["embeddings all"], said
    (stage,) = stages(tmp_path, "embeddings")
    assert stored(stage).verify().n == 60 and stored(stage).keys[30] == "00001/1000"
    refusals = read_json(stage / "refused.json")["refused"]
    assert [row["path"] for row in refusals] == [f"{tars}/{number:05d}.tar/broken.jpg" for number in range(2)]
    assert "2 members of the tars are left out" in said
    status, said = run("name", *given)
    assert status == 0 and [name.split()[0] for name in made(said)] == ["sae", "codes", "names"], said
    assert not list(tmp_path.glob("name/*/purity.csv"))  # nothing is known to be true
    write(tars / "00002.tar", [("b.png", picture(rng))])
    assert made(run("features", *given)[1]) == ["embeddings all"]
    line = refused(run, "bottleneck", *given)
    assert line.startswith("dataset: Tars has no labelled splits, and this job needs them; expected a benchmark")


def picture(rng) -> bytes:
    return encoded(int(rng.integers(256)))


def test_embeddings_of_a_classifier_can_be_learnt_from_but_not_named(root, run):
    given = ("features.of=model", "model=small_resnet", "sae.training.batch_size=64")
    said = ran(run, root, "bottleneck", *given)
    assert [name.split()[0] for name in made(said)].count("embeddings") == 4
    sizes = {stored(stage).dim for stage in stages(root, "embeddings")}
    assert len(sizes) == 2 and 128 in sizes
    line = refused(run, "name", *SMALL, *given, f"paths.root={root}")
    assert line.startswith("features.of: only latents of an image-text model's vectors can be named by words")


# ---- what makes no sense --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "arguments", "said"),
    [
        ("sae", ["+sae.model.kk=3"], "sae.model.kk"),
        ("sae", ["sae.model.k=300"], "k: 300; expected at most the 256 latents"),
        ("sae", ["sae.training.batch_size=400"], "sae.training.batch_size: 400 on 1 device(s), but there are 304"),
        ("sae", ["sae=relu", "sae.model.alignment=0.1", "features.of=model", "model=small_resnet"], "alignment: needs"),
        ("sae", ["clip=null"], "clip: missing, and features.of=clip needs it"),
        ("sae", ["features.of=model"], "features.of: model and model= go together; expected both or neither"),
        ("sae", ["features.splits=[trian]"], "trian"),
        ("name", ["naming.vocabulary=words.txt"], "words.txt: 'sand' stands on lines 1 and 3"),
        ("bottleneck", ["probe.strength=-1"], "probe.strength"),
        ("bottleneck", ["dataset=synthetic_sparse"], "dataset: SyntheticSparse has no labelled splits"),
        ("intervene", [], "intervene: nothing given; expected one of names, latents, text, sets"),
        ("intervene", ["intervene.names=[sand]", "intervene.latents=[1]"], "intervene: names, latents given; expected"),
        ("intervene", ["intervene.names=[sand]", "intervene.against=[a]"], "intervene.against: given, but intervene.t"),
        ("intervene", ["intervene.names=[sandd]"], "'sandd' fits no concept; nearest valid: sand"),
        ("intervene", ["intervene.text=[sandd]"], "intervene.text: 'sandd' is not in the vocabulary"),
        ("intervene", ["intervene.latents=[256]"], "256; expected 0…255"),
        ("intervene", ["intervene.latents=[1]", "intervene.kind=scale"], "None; expected a number ≥ 0 for 'scale'"),
    ],
)
def test_what_makes_no_sense_is_one_line(job, arguments, said, root, run, tmp_path):
    (tmp_path / "words.txt").write_text("sand\ngrass\nsand\n")
    line = refused(run, job, *SMALL, *arguments, f"paths.root={root}")
    assert said in line, line
