"""The job `annotate`: people answer the tasks of a run, on a page, in a static file, or elsewhere."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from aaca.runtime.app import run_job
from aaca.runtime.trial import Trial


def job(trial: Trial) -> None:
    """Do what `action` says. Raises `AacaError` where there are no tasks, or answers that do not fit them."""
    from aaca.annotate.book import AnswerBook
    from aaca.annotate.exchange import LABEL_STUDIO, READERS, Format, to_csv, to_label_studio, to_scale
    from aaca.annotate.pack import Pack
    from aaca.annotate.task import Answer, check_answers, load_lines
    from aaca.annotate.web.page import static_page
    from aaca.runtime.config import load_config
    from aaca.runtime.errors import ConfigError
    from aaca.runtime.files import write_text

    from .paths_config import PathsConfig

    @dataclass(frozen=True, kw_only=True)
    class AnnotateConfig:
        action: Literal["serve", "html", "export", "import"]
        run: str | None
        answers: str | None
        port: Annotated[int, Field(ge=0, le=65535)]
        format: Format
        file: str | None
        paths: PathsConfig

    options = load_config(trial.config, AnnotateConfig)
    run = find_run(options.run, Path(options.paths.root))
    pack = Pack.load(run)
    book = Path(options.answers) if options.answers else run / "answers.jsonl"
    if options.action == "serve":
        from aaca.annotate.web.server import serve

        serve(pack, AnswerBook(book), options.port)
        return
    if options.action == "html":
        file = Path(options.file or run / "annotate.html")
        write_text(file, static_page(pack))
        print(
            f"{len(pack.tasks)} tasks in {file}: open it, answer, save the answers, and give them to annotator=replay"
        )
        return
    file = Path(options.file or run / (f"answers.{options.format}" + ("" if options.format == "csv" else ".json")))
    if options.action == "import":
        if not file.is_file():
            raise ConfigError(f"file: no file {file}; expected answers as {options.format}")
        try:
            text = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigError(f"file: {file} is not UTF-8 ({error.reason}); save it as such") from error
        found = READERS[options.format](text, str(file), pack.tasks)
        check_answers(found, pack.tasks, str(file))
        owned = AnswerBook(book)
        for answer in found:
            owned.add(answer)
        owned.close()
        print(f"{len(found)} answers read, {book}")
        return
    if options.format == "label_studio":  # tasks go there, answers come back
        write_text(file, to_label_studio(pack))
        write_text(file.with_suffix(".xml"), LABEL_STUDIO)
        print(f"{len(pack.tasks)} tasks in {file}, the labelling interface in {file.with_suffix('.xml')}")
        return
    if not book.is_file():
        raise ConfigError(f"answers: no file {book}; expected the answers of `aaca annotate`")
    answers = list({(answer.task_id, answer.annotator): answer for answer in load_lines(book, Answer)}.values())
    write_text(file, to_csv(answers) if options.format == "csv" else to_scale(answers))
    print(f"{len(answers)} answers in {file}")


def find_run(given: str | None, root: Path) -> Path:
    """The folder of a run with tasks: the given one, or the newest below `root`."""
    from aaca.annotate.pack import TASKS
    from aaca.runtime.errors import ConfigError

    if given is not None:
        return Path(given)
    listed = [*root.glob(f"runs/*/{TASKS}"), *root.glob(f"inspect/*/{TASKS}")]
    found = sorted(listed, key=lambda file: file.stat().st_mtime)
    if not found:
        raise ConfigError(
            f"run: no run below {root}/runs has tasks; expected one of `aaca debug method=aaca` or `aaca inspect`, or "
            "run=its folder"
        )
    return found[-1].parent


def main() -> int:
    """Entry point: `aaca annotate`, `python -m experiments.annotate`."""
    return run_job("annotate")


if __name__ == "__main__":
    sys.exit(main())
