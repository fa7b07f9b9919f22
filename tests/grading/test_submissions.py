"""What students handed in is found and read; links, bombs and damaged files cost their owner, with the reason."""

import io
import json
import os
import stat
import zipfile

import pytest

from course_utils.grading import submissions

EXERCISE = "99_sums"


def notebook(*sources):
    return json.dumps({"nbformat": 4, "cells": [{"cell_type": "code", "source": source} for source in sources]})


def zipped(folder, student, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(folder / f"{student}.zip", "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content)


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def problem(folder, student="a"):
    read = submissions.read(folder, student, EXERCISE)
    assert read.cells == ()
    return read.problem


@pytest.mark.parametrize("path", [f"a/{EXERCISE}.ipynb", f"a/{EXERCISE}/{EXERCISE}.ipynb"])
def test_a_notebook_is_found_in_both_layouts(tmp_path, path):
    put(tmp_path / path, notebook("k = 3"))
    read = submissions.read(tmp_path, "a", EXERCISE)
    assert (read.student, read.exercise, read.cells, read.problem) == ("a", EXERCISE, ("k = 3",), "")
    assert len(read.digest) == 64
    assert submissions.read(tmp_path, "a", "98_other") is None


@pytest.mark.parametrize("path", [f"{EXERCISE}.ipynb", f"deep/er/{EXERCISE}.ipynb"])
def test_a_notebook_is_found_in_a_zip_file_beside_hostile_neighbours(tmp_path, path):
    zipped(tmp_path, "a", [("../../evil.py", "x"), ("/etc/passwd", "x"), (path, notebook("k = 3")), ("n.txt", "x")])
    before = sorted(tmp_path.parent.rglob("*"))
    assert submissions.read(tmp_path, "a", EXERCISE).cells == ("k = 3",)
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_students_are_folders_and_zip_files_in_order(tmp_path):
    put(tmp_path / "b" / "x.txt", "")
    put(tmp_path / "notes.txt", "")
    put(tmp_path / ".ipynb_checkpoints" / "x", "")
    zipped(tmp_path, "a", [])
    zipped(tmp_path, "b", [])
    assert submissions.students(tmp_path) == ["a", "b"]


def test_a_folder_without_submissions_is_an_error_of_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="holds no submissions"):
        submissions.students(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        submissions.students(tmp_path / "none")


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_link_is_refused_wherever_it_stands(tmp_path, level):
    put(tmp_path / "out" / EXERCISE / f"{EXERCISE}.ipynb", notebook("secret = 1"))
    folder = tmp_path / "in"
    target = tmp_path / "out"
    link = folder / "a"
    for _ in range(level):
        link, target = link / EXERCISE, target / EXERCISE
    if level == 2:
        link, target = link.with_suffix(".ipynb"), target.with_suffix(".ipynb")
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    assert submissions.students(folder) == ["a"]
    assert "is a link" in problem(folder)


def test_a_zip_file_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    zipped(tmp_path, "other", [(f"{EXERCISE}.ipynb", notebook("k = 1"))])
    (tmp_path / "in" / "a.zip").symlink_to(tmp_path / "other.zip")
    assert "is a link" in problem(tmp_path / "in")


def test_a_pipe_or_folder_in_place_of_a_notebook_is_refused_without_waiting(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / f"{EXERCISE}.ipynb")
    assert "is no file" in problem(tmp_path)
    (tmp_path / "b" / f"{EXERCISE}.ipynb").mkdir(parents=True)
    assert "is no file" in problem(tmp_path, "b")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no list of cells"),
        ('{"cells": 3}', "no list of cells"),
        ('{"cells": [{"cell_type": "code", "source": [1]}]}', "no text"),
        (json.dumps({"cells": [0] * 6000}), "6,000 cells"),
        (notebook("x" * 2**20, "x"), "characters of code"),
        (" " * (10 * 2**20 + 1), "larger than 10 MiB"),
    ],
    ids=lambda part: part[:20],
)
def test_a_damaged_notebook_costs_its_owner_with_the_reason(tmp_path, content, words):
    put(tmp_path / "a" / f"{EXERCISE}.ipynb", content)
    assert words in problem(tmp_path)


def test_cells_that_are_no_code_or_no_cells_are_passed_over():
    cells = [{"cell_type": "markdown", "source": "# t"}, 3, {}, {"cell_type": "code", "source": "k = 1"}]
    assert submissions.code_cells(json.dumps({"cells": cells}).encode()) == ["k = 1"]


def test_a_path_that_leads_out_of_a_zip_file_is_refused(tmp_path):
    for name in (f"../{EXERCISE}.ipynb", f"/{EXERCISE}.ipynb", f"a/../../{EXERCISE}.ipynb"):
        zipped(tmp_path, "a", [(name, notebook("k = 1"))])
        assert "leads out of it" in problem(tmp_path), name


def test_a_link_in_a_zip_file_is_refused(tmp_path):
    link = zipfile.ZipInfo(f"{EXERCISE}.ipynb")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    zipped(tmp_path, "a", [(link, "/etc/passwd")])
    assert "is a link" in problem(tmp_path)


def test_bombs_are_refused_before_they_grow(tmp_path):
    zipped(tmp_path, "a", [(f"{EXERCISE}.ipynb", " " * (11 * 2**20))])
    assert "larger than 10 MiB" in problem(tmp_path)
    archive = bytearray((tmp_path / "a.zip").read_bytes())
    for field in (archive.rindex(b"PK\1\2") + 24, archive.index(b"PK\3\4") + 22):  # now the sizes lie
        archive[field : field + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(archive)
    assert problem(tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_compression_that_asks_for_any_memory_is_refused(tmp_path, method):
    zipped(tmp_path, "a", [(f"{EXERCISE}.ipynb", notebook("k = 1"))], method)
    assert "unusual way" in problem(tmp_path)


def test_a_damaged_doubled_or_encrypted_zip_file_costs_its_owner(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 no zip file")
    assert "damaged" in problem(tmp_path)
    with pytest.warns(UserWarning, match="Duplicate"):
        zipped(tmp_path, "b", [(f"{EXERCISE}.ipynb", notebook("k = 1"))] * 2)
    assert "2 times" in problem(tmp_path, "b")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{EXERCISE}.ipynb", notebook("k = 1"))
    data = bytearray(buffer.getvalue())
    data[6] |= 1
    data[data.rindex(b"PK\1\2") + 8] |= 1
    (tmp_path / "c.zip").write_bytes(data)
    assert "encrypted" in problem(tmp_path, "c")


def test_a_folder_goes_before_a_zip_file(tmp_path):
    put(tmp_path / "a" / f"{EXERCISE}.ipynb", notebook("k = 1"))
    zipped(tmp_path, "a", [(f"{EXERCISE}.ipynb", notebook("k = 2"))])
    assert submissions.read(tmp_path, "a", EXERCISE).cells == ("k = 1",)
