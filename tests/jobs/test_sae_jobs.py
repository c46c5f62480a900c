"""The jobs around sparse autoencoders at smoke size: files and tables, stages shared, sources of vectors, errors."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.sparse import load_npz

from aaca.concepts.concept_sets import ClassConcepts, Concept, ConceptSets
from aaca.data.embeddings import EmbeddingStore
from aaca.data.synthetic_sparse import SyntheticSparse
from aaca.evaluate.sparse import mcc, mmcs
from aaca.models.timm_model import TimmModel
from aaca.runtime.files import read_json
from aaca.training.sparse_probe import Probe
from experiments.sae_files import load_sae
from tests.data.test_webdataset_tars import encoded, write
from tests.jobs.conftest import Run, command

SMALL = ("size=smoke", "trainer=cpu", "sae=topk", "sae.training.epochs=2")
PLANTED = ("dataset=synthetic_sparse", "dataset.n=3000", "trainer=cpu", "sae=topk", "sae.training.epochs=2")
COUNTS = {"train": 160, "pool": 160, "audit": 120, "test": 144, "test_seen": 144}
LATENTS = 256
RUN = {"run.json", "config.yaml"}


@pytest.fixture(scope="module", autouse=True)
def short_path():
    """All six targets take a path of 151 fits, a quarter of a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aaca.experiments.sae_run.TARGETS", (5, 10))
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Embedded, an autoencoder trained, its latents named and a probe fitted: what the other jobs go on from."""
    folder = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        for job in ("features", "name", "bottleneck"):
            assert command(patch, folder, [job, *SMALL, f"paths.root={folder}"]) == 0
    return folder


def stages(root: Path, name: str) -> list[Path]:
    """Published stages, the oldest first."""
    found = [path.parent for path in root.glob(f"stages/{name}/*/manifest.json")]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def made(said: str) -> list[str]:
    """Stages that were made, not found."""
    return re.findall(r"stage (.*?) +[0-9a-f]{8}  made in", said)


def kinds(said: str) -> list[str]:
    return [name.split()[0] for name in made(said)]


def ran(run: Run, root: Path, job: str, *more: str) -> str:
    status, said = run(job, *SMALL, *more, f"paths.root={root}")
    assert status == 0, said
    return said


def table(said: str, name: str) -> pd.DataFrame:
    """The table of that name, which the job says it has written."""
    (file,) = re.findall(rf"table: (\S+/{name}\.csv)", said)
    return pd.read_csv(file)


def folder(said: str) -> Path:
    """Of the run."""
    return Path(re.findall(r"table: (\S+)/\w+\.csv", said)[0])


def files(where: Path) -> set[str]:
    return {path.name for path in where.iterdir() if path.is_file() and path.name[0] != "."} - RUN


def stored(stage: Path) -> EmbeddingStore:
    return EmbeddingStore.open(stage / "store").verify()


def vectors_of(root: Path, split: str) -> EmbeddingStore:
    """The first store of a split: the image-text model's."""
    return next(store for store in map(stored, stages(root, "embeddings")) if store.about["rows"] == split)


def refused(run: Run, job: str, *arguments: str) -> str:
    """The one line that says why a job ends."""
    status, said = run(job, *arguments)
    (line,) = [line for line in said.splitlines() if "error:" in line]
    assert status == 1 and "Traceback" not in said and said.endswith(f"{line}\n"), said
    return line.removeprefix("error: ")


def test_features_embeds_every_split_and_a_second_run_finds_all(root, run):
    said = ran(run, root, "features")
    assert made(said) == []
    found = table(said, "features")
    assert dict(zip(found["split"], found["vectors"], strict=True)) == COUNTS and set(found["size"]) == {128}
    assert all(f" {split} " in said for split in COUNTS)
    store = EmbeddingStore.open(Path(found["folder"][0])).verify()
    assert (store.n, store.dim, store.dtype) == (160, 128, "float16") and np.bincount(store.labels).tolist() == [40] * 4
    assert store.content.startswith(str(found["content"][0]))
    assert abs(store.mean_norm - 1) > 1  # as the tower gives them, not of length 1


def test_sae_says_what_the_autoencoders_are_worth(root, run):
    said = ran(run, root, "sae")
    assert made(said) == [] and "explained_variance" in said
    assert files(folder(said)) == {"sae.csv", "resampled.json"}
    (row,) = table(said, "sae").to_dict("records")
    assert row["latents"] == LATENTS and row["l0_mean"] == 8 and 0 < row["explained_variance"] < 1
    stage = stages(root, "sae")[0]
    sae, scaling = load_sae(stage)
    assert sae.latents == LATENTS and f"autoencoders: {stage}" in said
    stores = [vectors_of(root, split) for split in ("train", "pool")]
    rows = np.concatenate([store.gather(np.arange(store.n)) for store in stores])
    assert float(scaling(torch.from_numpy(rows)).norm(dim=1).mean()) == pytest.approx(128**0.5, rel=1e-3)


def test_two_seeds_train_in_one_pass_and_say_how_alike_they_are(root, run):
    said = ran(run, root, "name", "sae.repeats=2")
    assert kinds(said) == ["sae", "codes", "names", "codes"]
    summary = table(said, "names").iloc[0]
    (against,) = read_json(folder(said) / "stability.json")["against"]
    assert against["seed"] == 1 and summary["cosine_between_seeds"] == pytest.approx(against["cosine"])
    assert 0 < against["cosine"] < 1 and 0 <= against["same_name"] <= 1
    said = ran(run, root, "sae", "sae.repeats=2")
    assert table(said, "sae")["seed"].tolist() == [0, 1] and made(said) == []


def test_name_names_all_latents_and_says_whether_it_is_right(root, run):
    said = ran(run, root, "name")
    assert made(said) == [] and "the surest names" in said
    where, summary = folder(said), table(said, "names").iloc[0]
    wanted = {"names.csv", "names.parquet", "concept_names.csv", "duplicates.csv", "stability.json", "check.parquet"}
    assert files(where) == {*wanted, "purity.csv"}
    names = pd.read_parquet(where / "names.parquet")
    assert names["latent"].tolist() == np.repeat(np.arange(LATENTS), 5).tolist()
    codes = load_npz(stages(root, "codes")[0] / "codes.npz")  # of train
    assert codes.shape == (160, LATENTS)
    assert (summary["latents"], summary["live"]) == (LATENTS, len(set(codes.indices)))
    assert read_json(where / "stability.json") == {"against": []}
    purity = pd.read_csv(where / "purity.csv")
    assert {"grass", "bird"} <= set(purity["concept"]) and summary["right"] == pytest.approx(purity["right"].mean())
    lines = (where / "concept_names.csv").read_text().splitlines()
    assert len(lines) == LATENTS and lines[3].startswith("3,")


def test_bottleneck_says_accuracy_and_how_few_concepts_it_decides_by(root, run):
    said = ran(run, root, "bottleneck")
    assert made(said) == [] and "test_worst_group_accuracy" in said
    assert files(folder(said)) == {"bottleneck.csv", "bottleneck.json"}
    (row,) = table(said, "bottleneck").to_dict("records")
    probe = Probe.load(stages(root, "probe")[0] / "probe")
    assert row["nec"] == np.count_nonzero(probe.weight) / 4 < LATENTS
    assert read_json(folder(said) / "bottleneck.json")["zeros"]["0"] == (probe.weight == 0).sum()
    test, (sae, scaling) = vectors_of(root, "test"), load_sae(stages(root, "sae")[0])
    with torch.no_grad():
        codes = sae.encode(scaling(torch.from_numpy(test.gather(np.arange(test.n))))).numpy()
    right = probe.logits(codes).argmax(axis=1) == test.labels
    assert row["test_accuracy"] == pytest.approx(right.mean())
    worst = pd.Series(right).groupby(test.groups).mean().min()
    assert row["test_worst_group_accuracy"] == pytest.approx(worst) and worst < row["test_accuracy"]
    at = {name: value for name, value in row.items() if name.startswith("accuracy_at_")}
    assert set(at) == {"accuracy_at_5", "accuracy_at_10"} and row["anec"] == pytest.approx(np.mean(list(at.values())))
    assert all(0.3 < accuracy < 1 for accuracy in at.values())
    said = ran(run, root, "bottleneck", "probe=nec")  # the path is of any probe
    assert kinds(said) == ["probe"] and table(said, "bottleneck")["nec"][0] == 5
    assert table(said, "bottleneck")["anec"][0] == row["anec"]


def test_explain_writes_tables_figures_and_a_page(root, run):
    said = ran(run, root, "explain", "explain.images=4", "explain.clusters=3")
    assert set(kinds(said)) <= {"codes"}
    where = folder(said)
    tables = ("local", "global_strength", "global_contribution", "class_contributions", "agnosticity")
    for name in (*tables, "cluster_words", "cluster_members"):
        assert len(pd.read_parquet(where / f"{name}.parquet")), name
    assert f"page: {where / 'explanations.html'}" in said
    page = (where / "explanations.html").read_text()
    assert "produce" in page and "data:image" in page
    drawn = [re.sub(r"_\d+$", "", path.stem) for path in (where / "figures").glob("*.png")]
    counts = {"local": 4, "global_contribution": 4, "global_strength": 4, "clusters": 1, "agnosticity": 1, "cosines": 1}
    assert {kind: drawn.count(kind) for kind in set(drawn)} == counts
    for path in (where / "figures").glob("*.png"):
        with Image.open(path) as image:
            assert image.convert("L").getextrema()[0] < 200, f"{path.name} shows nothing"


def test_intervene_compares_what_is_off_with_random_concepts_and_with_a_new_probe(root, run):
    options = ("intervene.names=[san*]", "intervene.controls=2", "intervene.kind=zero")
    assert made(ran(run, root, "intervene", *options)) != []  # probes that never saw them
    said = ran(run, root, "intervene", *options)
    assert made(said) == []
    found = table(said, "interventions").set_index("name")
    names = ["as it is", "zero: san*", "refitted without", "random, mean of 2", "random, refitted without, mean of 2"]
    assert found.index.tolist() == names and all(name in said for name in names)
    bottleneck = table(ran(run, root, "bottleneck"), "bottleneck").iloc[0]
    for name in ("audit_accuracy", "audit_worst_group_accuracy", "test_accuracy", "test_worst_group_accuracy"):
        assert found.loc["as it is", name] == pytest.approx(bottleneck[name])
    frame = pd.read_parquet(folder(said) / "names.parquet").query("rank == 1")
    chosen = frame.query("word == 'sand' and density > 0")["latent"].tolist()
    assert found["latents"].tolist() == [0, *[len(chosen)] * 4] and len(chosen) > 1
    test, (sae, scaling) = vectors_of(root, "test"), load_sae(stages(root, "sae")[0])
    with torch.no_grad():
        codes = sae.encode(scaling(torch.from_numpy(test.gather(np.arange(test.n))))).numpy()
    codes[:, chosen] = 0
    probe = Probe.load(stages(root, "probe")[0] / "probe")
    accuracy = (probe.logits(codes).argmax(axis=1) == test.labels).mean()
    assert found.loc["zero: san*", "test_accuracy"] == pytest.approx(accuracy)
    assert found.loc["as it is", "test_accuracy"] != pytest.approx(accuracy)


@pytest.mark.parametrize("way", ["latents=[35,72,15,23]", "text=[grass]", "sets=sets.yaml"])
def test_concepts_are_chosen_in_other_ways(way, root, run, tmp_path):
    own = ClassConcepts(confounded=(Concept("grass"), Concept("a ball")))
    ConceptSets({"bird": own, "produce": own}, {"annotator": "a person"}).save(tmp_path / "sets.yaml")
    more = ("intervene.least_cosine=0.1", "intervene.refit=false", "intervene.controls=1")
    said = ran(run, root, "intervene", f"intervene.{way}", *more)
    assert made(said) == []
    found = table(said, "interventions").set_index("name")
    assert len(found) == 3 and found["latents"].iloc[0] == 0
    frame = pd.read_parquet(folder(said) / "names.parquet").query("rank == 1 and density > 0")
    rows = {
        "latents": frame["latent"].isin([35, 72, 15, 23]),
        "text": (frame["word"] == "grass") & (frame["cosine"] >= 0.1),
        "sets": frame["word"].isin(["grass", "ball"]),
    }[way.split("=")[0]]
    assert found["latents"].iloc[1] == found["latents"].iloc[2]
    assert found["latents"].iloc[1] == rows.sum() > 0 or (way[:4] == "text" and found["latents"].iloc[1] > rows.sum())


# ---- other vectors --------------------------------------------------------------------------------------------------


def test_planted_vectors_and_how_many_directions_are_found_again(run, tmp_path):
    status, said = run("sae", *PLANTED, "dataset.dim=16", "dataset.atoms=24", "sae.holdout=0", f"paths.root={tmp_path}")
    assert status == 0, said
    (row,) = table(said, "sae").to_dict("records")
    planted = SyntheticSparse(n=3000, dim=16, atoms=24).dictionary().T
    atoms = load_sae(stages(tmp_path, "sae")[0])[0].atoms.detach().numpy().T
    assert row["mmcs"] == pytest.approx(mmcs(planted, atoms)) and row["mcc"] == pytest.approx(mcc(planted, atoms))
    assert 0.3 < row["mcc"] <= row["mmcs"] < 1 and {"mmcs", "mcc", "recovered"} <= set(re.findall(r"\w+", said))
    assert row["latents"] == 32
    assert "can be named by words" in refused(run, "name", *PLANTED, f"paths.root={tmp_path}")


def test_an_autoencoder_is_exported_and_taken_again_in_the_place_of_training_one(run, tmp_path):
    given = (*PLANTED, "dataset.dim=16", "dataset.atoms=24", f"paths.root={tmp_path}")
    status, said = run("sae", *given, "export=saelens")
    assert status == 0, said
    (row,) = table(said, "sae").to_dict("records")
    for path, kind in ((stages(tmp_path, "sae")[0], "aaca"), (folder(said) / "saelens_0", "saelens")):
        status, again = run("sae", *given, f"trained.path='{path}'", f"trained.format={kind}")
        assert status == 0 and kinds(again) == ["sae"], again
        (other,) = table(again, "sae").to_dict("records")
        assert (other["mcc"], other["mmcs"]) == pytest.approx((row["mcc"], row["mmcs"]), rel=1e-5)
        assert other["explained_variance"] == pytest.approx(row["explained_variance"], abs=0.05)  # of all vectors


def test_two_processes_train_one_autoencoder_and_print_one_table(run, tmp_path):
    arguments = ["trainer=ddp_cpu" if item == "trainer=cpu" else item for item in PLANTED]
    status, said = run("sae", *arguments, "sae.holdout=0.5", f"paths.root={tmp_path}")
    assert status == 0, said
    assert said.count("explained_variance") == 1 and kinds(said) == ["embeddings", "sae"]
    (row,) = table(said, "sae").to_dict("records")
    assert 0.2 < row["mcc"] <= row["mmcs"] < 1
    (stage,) = stages(tmp_path, "sae")
    assert read_json(stage / "manifest.json")["inputs"]["devices"] == 2
    updates = pd.read_csv(stage / "log" / "metrics.csv")["updates"].tolist()
    assert updates == [750 // 256, 2 * (750 // 256)]  # each process its half, and equally many
    (worth,) = read_json(stage / "metrics.json")["saes"]
    assert worth["n"] == 1500 and row["explained_variance"] == worth["explained_variance"]  # all that is held out


def test_tars_are_embedded_and_named_and_what_cannot_be_read_is_listed(run, tmp_path):
    tars, rng = tmp_path / "tars", np.random.default_rng(0)
    tars.mkdir()
    for number in range(2):
        members = [(f"{number}{row:03d}.png", encoded(int(rng.integers(256)))) for row in range(30)]
        write(tars / f"{number:05d}.tar", [*members, ("broken.jpg", b"GIF but not really"), ("a.txt", b"text")])
    given = ("dataset=cc3m", f"dataset.root={tars}", *SMALL, "sae.training.batch_size=16", f"paths.root={tmp_path}")
    status, said = run("features", *given)
    assert status == 0 and made(said) == ["embeddings all"], said
    (stage,) = stages(tmp_path, "embeddings")
    assert stored(stage).n == 60 and stored(stage).keys[30] == "00001/1000"
    listed = [row["path"] for row in read_json(stage / "refused.json")["refused"]]
    assert listed == [f"{tars}/{number:05d}.tar/broken.jpg" for number in range(2)]
    assert "2 members of the tars are left out" in said
    status, said = run("name", *given)
    assert status == 0 and kinds(said) == ["sae", "codes", "names"], said
    assert "purity.csv" not in files(folder(said)) and len(table(said, "names")) == 1  # nothing is known to be true
    line = refused(run, "bottleneck", *given)
    assert line.startswith("dataset: Tars has no labelled splits, and this job needs them; expected a benchmark")
    line = refused(run, "features", "dataset=cc3m", f"dataset.root={tmp_path}/none", *SMALL)
    assert line == f"{tmp_path}/none: no .tar file; expected a folder of them, one of them, or a pattern"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> tuple[str, ...]:
    """Vectors of a network whose weights are in a file."""
    file = tmp_path_factory.mktemp("weights") / "small.safetensors"
    kwargs = {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128], "stem_type": "deep", "stem_width": 8}
    torch.manual_seed(0)
    weights = TimmModel("resnet18", 64, kwargs=kwargs).build(4).backbone.state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, file)
    return "features.of=model", "model=small_resnet", f"+model.checkpoint={file}"


def test_embeddings_of_a_classifier_can_be_learnt_from_but_not_named(root, run, classifier):
    given = (*classifier, "sae.training.batch_size=64")
    said = ran(run, root, "sae", *given)
    assert kinds(said) == ["embeddings", "embeddings", "sae"]
    encoders = [stored(stage).about["encoder"] for stage in stages(root, "embeddings")[-2:]]
    assert all(encoder["name"] == "resnet18" and "templates" not in encoder for encoder in encoders)
    line = refused(run, "name", *SMALL, *given, f"paths.root={root}")
    assert line.startswith("features.of: only latents of an image-text model's vectors can be named by words")
    assert made(ran(run, root, "sae", *given, "~clip")) == []  # which is not read
    line = refused(run, "sae", *SMALL, "sae=relu", "sae.model.alignment=0.1", *classifier, f"paths.root={root}")
    assert line.startswith("sae.model.alignment: needs words, and so an image-text model's vectors")


def test_alignment_pulls_codes_towards_the_vocabulary_s_words(root, run, tmp_path):
    (tmp_path / "words.txt").write_text("sand\ngrass\nsnow\nball\n")
    options = ("sae=relu", "sae.training.epochs=20", "naming.vocabulary=words.txt", "naming.top=2")
    found = []
    for weight in (0, 1):
        said = ran(run, root, "name", *options, f"sae.model.alignment={weight}")
        assert kinds(said) == ["sae", "codes", "names", "codes"]
        cosines = pd.read_parquet(folder(said) / "names.parquet").query("rank == 1")["cosine"].to_numpy()
        codes = load_npz(stages(root, "codes")[-2] / "codes.npz").toarray()  # of train
        found.append(float((codes @ cosines / np.linalg.norm(codes, axis=1)).mean()))
    assert found[1] > found[0] + 0.1, found
    (tmp_path / "words.txt").write_text("sand\ngrass\nsnow\nproduce\n")
    assert kinds(ran(run, root, "sae", *options, "sae.model.alignment=1")) == ["sae"]  # of other words
    assert kinds(ran(run, root, "sae", *options, "sae.model.alignment=0")) == []


# ---- what makes no sense --------------------------------------------------------------------------------------------

CLASSIFIER = ("features.of=model", "model=small_resnet")
MISTAKES = [
    ("sae", ["+sae.model.kk=3"], "sae.model.kk"),
    ("sae", ["sae.model.k=300"], "sae.model.k: 300; expected at most the 256 latents"),
    ("sae", ["sae.training.batch_size=400"], "sae.training.batch_size: 400 on 1 device(s), but there are 304 training"),
    ("sae", ["~clip"], "clip: missing, and features.of=clip needs it"),
    ("sae", ["features.of=model"], "features.of: model and model= go together; expected both or neither"),
    ("sae", CLASSIFIER, "model: its weights are random, and so would the vectors be"),
    ("sae", ["features.splits=[trian]"], "features.splits: 'trian'; nearest valid: train"),
    ("sae", ["features.splits=[train,test]"], "features.splits: 'test'; no autoencoder learns from test"),
    ("sae", ["trained.path=nowhere"], "trained.path: nothing at nowhere"),
    ("name", ["naming.vocabulary=words.txt"], "words.txt: 'sand' stands on lines 1 and 3; expected every word once"),
    ("bottleneck", ["probe.strength=-1"], "probe.strength"),
    ("bottleneck", ["dataset=synthetic_sparse"], "dataset: SyntheticSparse has no labelled splits"),
    ("intervene", [], "intervene: nothing given; expected one of names, latents, text, sets"),
    ("intervene", ["intervene.names=[sand]", "intervene.latents=[1]"], "intervene: names, latents given; expected one"),
    ("intervene", ["intervene.names=[sand]", "intervene.against=[a]"], "intervene.against: given, but intervene.text"),
    ("intervene", ["intervene.names=[sandd]"], "intervene.names: 'sandd' fits no concept; nearest valid: sand"),
    ("intervene", ["intervene.text=[sandd]"], "intervene.text: 'sandd' is not in the vocabulary; nearest valid: sand"),
    ("intervene", ["intervene.latents=[256]"], "intervene.latents: 256; expected 0…255"),
    ("intervene", ["intervene.latents=[35]", "intervene.kind=scale"], "intervene.value: None; expected a number ≥ 0"),
]


@pytest.mark.parametrize(("job", "arguments", "said"), MISTAKES)
def test_what_makes_no_sense_is_one_line(job, arguments, said, root, run, tmp_path):
    (tmp_path / "words.txt").write_text("sand\ngrass\nsand\n")
    size = "size=demo" if "dataset=synthetic_sparse" in arguments else "size=smoke"
    line = refused(run, job, size, *SMALL[1:], *arguments, f"paths.root={root}")
    assert said in line, line
