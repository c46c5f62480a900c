"""The file of answers: on the disk at once, many threads, killed writers, a full disk, a second owner."""

import json
import os
import subprocess
import sys
import threading

import pytest

from aaca.annotate.book import AnswerBook
from aaca.annotate.task import Answer, load_lines, to_line
from aaca.runtime.errors import AacaError, DataError


def answer(task, person="ann", relevance=1.0):
    return Answer(f"failure/{task}", person, "bird", "mammal", str(task), "object", "sand", relevance, ("beak",))


def test_what_is_added_is_on_the_disk_and_the_last_word_counts(tmp_path):
    book = AnswerBook(tmp_path / "answers.jsonl")
    book.add(answer(1))
    book.add(answer(1, relevance=4.0))
    book.add(answer(1, "ben"))
    assert len(load_lines(tmp_path / "answers.jsonl", Answer)) == 3  # nothing is ever taken out
    assert len(book) == 2 and book.of("ann")["failure/1"].relevance == 4
    book.close()
    again = AnswerBook(tmp_path / "answers.jsonl")
    assert again.of("ann")["failure/1"].relevance == 4 and again.of("ben")
    again.close()


def test_two_people_at_once_lose_nothing(tmp_path):
    book = AnswerBook(tmp_path / "answers.jsonl")

    def write(person):
        for task in range(50):
            book.add(answer(task, person))

    threads = [threading.Thread(target=write, args=(person,)) for person in ("ann", "ben", "cid")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(book) == 150 == len(load_lines(book.path, Answer))
    book.close()


def test_half_a_line_of_a_killed_writer_is_cut_off_and_no_more(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(to_line(answer(1)) + "\n" + to_line(answer(2))[:50])
    book = AnswerBook(path)
    book.add(answer(3))
    book.close()
    assert [a.task_id for a in load_lines(path, Answer)] == ["failure/1", "failure/3"]


def test_a_last_line_that_an_editor_left_without_its_end_is_kept(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(to_line(answer(1)) + "\n" + to_line(answer(2)))
    book = AnswerBook(path)
    book.add(answer(3))
    book.close()
    assert [a.image_id for a in load_lines(path, Answer)] == ["1", "2", "3"]


def test_kill_minus_nine_loses_no_confirmed_answer(tmp_path):
    script = (
        "import sys; from pathlib import Path; from aaca.annotate.book import AnswerBook\n"
        "from tests.annotate.test_book import answer\n"
        "book = AnswerBook(Path(sys.argv[1]))\n"
        "for task in range(10_000):\n    book.add(answer(task)); print(task, flush=True)\n"
    )
    path = tmp_path / "answers.jsonl"
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    confirmed = [int(process.stdout.readline()) for _ in range(20)]
    process.kill()
    confirmed += [int(line) for line in process.communicate()[0].split()]
    book = AnswerBook(path)  # its owner is gone, so is its lock
    kept = {int(a.image_id) for a in book.of("ann").values()}
    assert set(confirmed) <= kept and len(kept) <= len(confirmed) + 1
    book.close()


def test_a_full_disk_is_said_and_leaves_no_half_line(tmp_path, monkeypatch):
    book = AnswerBook(tmp_path / "answers.jsonl")
    book.add(answer(1))
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))
    with pytest.raises(DataError, match=r"answers\.jsonl: the answer could not be saved"):
        book.add(answer(2))
    monkeypatch.undo()
    book.add(answer(3))
    book.close()
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["image_id"] for line in lines] == ["1", "3"]


def test_one_owner_at_a_time(tmp_path):
    book = AnswerBook(tmp_path / "answers.jsonl")
    with pytest.raises(AacaError, match="somebody else is writing"):
        AnswerBook(tmp_path / "answers.jsonl")
    book.close()
    AnswerBook(tmp_path / "answers.jsonl").close()
