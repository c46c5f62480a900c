"""Names and values that nobody should trust: they stay text, stay inside the folder, and secrets stay unwritten."""

import csv
import json
from html.parser import HTMLParser

from tests.jobs.sweeping import aaca
from tests.toys import picture_folder

NAMES = ("../../x", "<script>alert(1)</script>", "n" * 300, "=1+1\t‮", "CON")
SECRET = "planted-secret-of-a-yaml"


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.found += [name for name, _ in attrs if name.startswith("on")]


def test_class_names_that_are_paths_markup_or_endless_stay_text(tmp_path):
    root = picture_folder(tmp_path / "pictures", per_class=24, classes=[str(index) for index in range(len(NAMES))])
    files = sorted(path.relative_to(root) for path in root.rglob("*.png"))
    with (root / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "split", "group"])
        writer.writerows([file, NAMES[int(file.parts[1])], file.parts[0], NAMES[int(file.parts[1])]] for file in files)
    out = tmp_path / "a" / "b" / "out"
    small = ("trainer=cpu", "model.image_size=32", "recipe.batch_size=8", "debugset.per_class=3", "recipe.epochs=2")
    dataset = ("dataset=imagefolder", f"dataset.root={root}", "dataset.manifest=manifest.csv", "~dataset.per_class")
    done = aaca(
        *("debug", "method=s_random", "size=smoke", *dataset, *small, "logger=wandb", f"paths.root={out}"),
        *("study='<b>../../study</b>'",),
        cwd=tmp_path,
        WANDB_MODE="offline",
        WANDB_API_KEY="",
    )
    assert done.returncode == 0, done.stderr
    done = aaca("compare", f"paths.root={out}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "a"}
    assert {path.name for path in (tmp_path / "a").rglob("*") if path.name == "x"} == set()
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["out"]
    assert max(len(path.name) for path in out.rglob("*")) < 150
    page = (out / "report.html").read_text()
    assert not {"script", "b", "iframe", "object"} & set(Tags(page).found)
    assert not [tag for tag in Tags(page).found if tag.startswith("on")]
    assert "&lt;script&gt;" in page
    (outcome,) = out.glob("runs/*/outcome.json")
    assert sorted(json.loads(outcome.read_text())["classes"]) == sorted(NAMES)
    assert len(list(out.glob("wandb/offline-run-*"))) == 3  # two loops and the outcome


PLUGIN = """
from aaca.data.imagefolder import ImageFolder

class Private(ImageFolder):
    def __init__(self, root: str, token: str, other: str, literal: dict[str, str]) -> None:
        super().__init__(root)
        self.token, self.other, self.literal = token, other, literal

    def fingerprint(self):
        import logging
        logging.getLogger("aaca").info("asking with %s, %s and %s", self.token, self.other, self.literal)
        return {**super().fingerprint(), "token": self.token, "other": self.other, "literal": self.literal}
"""

YAML = f"""
_target_: private_lab.Private
root: ???
token: ${{oc.env:MY_LAB_TOKEN}}
other: ${{oc.env:MY_OTHER}}
literal: {{password: {SECRET}}}
"""


def test_secrets_in_a_yaml_and_in_the_environment_reach_no_file_log_or_page(tmp_path):
    """A plug-in with a token: from the environment by a telling name, by an innocent one, and in a YAML itself."""
    root, out = picture_folder(tmp_path / "pictures"), tmp_path / "out"
    lab = tmp_path / "lab"
    (lab / "conf" / "dataset").mkdir(parents=True)
    (lab / "private_lab.py").write_text(PLUGIN)
    (lab / "conf" / "dataset" / "private.yaml").write_text(YAML)
    (lab / "conf" / "dataset_size").mkdir()
    secrets = {"MY_LAB_TOKEN": "planted-token-one", "WANDB_API_KEY": "f4ke" * 10}
    small = ("trainer=cpu", "model.image_size=32", "recipe.batch_size=8", "debugset.per_class=3", "size=smoke")
    done = aaca(
        *("debug", "--config-dir", str(lab / "conf"), "-m", "method=none,s_random"),
        *("dataset=private", f"dataset.root={root}", *small, "logger=wandb", "logger.mode=offline"),
        f"paths.root={out}",
        cwd=tmp_path,
        AACA_PLUGINS="private_lab",
        PYTHONPATH=str(lab),
        MY_OTHER="not-secret-by-name",
        **secrets,
    )
    assert done.returncode == 0, done.stderr
    assert aaca("compare", f"paths.root={out}", cwd=tmp_path, **secrets).returncode == 0
    assert "asking with (secret), not-secret-by-name and {'password': '(secret)'}" in done.stderr
    values = [SECRET, *secrets.values()]
    written = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert len(written) > 40
    for value in values:
        assert [str(path) for path, data in written.items() if value.encode() in data] == []
        assert value not in done.stdout + done.stderr
    (config, _) = sorted(out.glob("runs/*/config.yaml"))
    assert "token: (secret)" in config.read_text()


def test_a_secret_in_an_override_is_refused_before_anything_is_written(tmp_path):
    for override in ("+api_key=sk-0123456789abcdefghij", "study=hf_0123456789abcdefghijkl", "+dataset.password=geheim"):
        for mode in ((), ("-m", "seed=0,1")):
            done = aaca("debug", *mode, override, f"paths.root={tmp_path / 'out'}", cwd=tmp_path)
            assert done.returncode == 1
            assert "a secret does not belong on a command line" in done.stderr
            assert override.partition("=")[2] not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
