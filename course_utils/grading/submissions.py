"""Find what students handed in and read the code of it, without trusting a name, a link, a size or a file.

A folder holds one entry a student: `<student>/<NN_topic>.ipynb`, `<student>/<NN_topic>/<NN_topic>.ipynb` as nbgrader
collects it, or `<student>.zip` with such a notebook in it. Nothing is unpacked to disk and no link is followed.
"""

import hashlib
import io
import json
import os
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

NOTEBOOK_LIMIT = 10 * 2**20  # bytes
ZIP_LIMIT = 20 * 2**20
CODE_LIMIT = 2**20  # characters in all code cells
CELL_LIMIT = 5000
PLAIN_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others ask for as much memory as the file likes


@dataclass(frozen=True)
class Submission:
    """One notebook of one student. cells: the source of its code cells; digest: SHA-256 of the file.

    problem: why there is no code to run, "" where there is.
    """

    student: str
    exercise: str
    cells: tuple[str, ...] = ()
    digest: str = ""
    problem: str = ""


class UnreadableError(ValueError):
    """A file that is not taken, in a sentence."""


def students(folder: str | Path) -> list[str]:
    """The names of those who handed something in, sorted. Raises ValueError if there is no such folder, or nobody.

    >>> students("nowhere")
    Traceback (most recent call last):
    ValueError: nowhere is no folder of submissions
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder of submissions")
    names = set()
    for entry in os.scandir(folder):
        if not entry.name.startswith("."):
            try:
                folder_there = entry.is_dir()  # also behind a link: that student is told so
            except OSError:  # a link that leads round in a circle
                folder_there = True
            if folder_there:
                names.add(entry.name)
            elif entry.name.lower().endswith(".zip"):
                names.add(entry.name[:-4])
    names.discard("")
    if not names:
        raise ValueError(f"{folder} holds no submissions: one folder or zip file a student is looked for")
    return sorted(names)


def read(folder: str | Path, student: str, exercise: str) -> Submission | None:
    """What a student handed in for an exercise (`NN_topic`); None where there is nothing of the kind.

    A file that cannot be taken is a Submission with a problem: never an exception, never another file.
    """
    try:
        data = _read_folder(folder, student, exercise)
        if data is None:
            data = _read_zip(folder, student, exercise)
    except UnreadableError as error:
        return Submission(student, exercise, problem=str(error))
    if data is None:
        return None
    digest = hashlib.sha256(data).hexdigest()
    try:
        return Submission(student, exercise, tuple(code_cells(data)), digest)
    except UnreadableError as error:
        return Submission(student, exercise, digest=digest, problem=str(error))


def file_name(student: str) -> str:
    """A name for files about a student: the student's own, or the start of a very long one with its digest.

    >>> file_name("ada"), len(file_name("a" * 250))
    ('ada', 115)
    """
    name = os.fsencode(student)
    return student if len(name) <= 200 else f"{student[:50]}-{hashlib.sha256(name).hexdigest()}"


def code_cells(data: bytes) -> list[str]:
    """The sources of a notebook's code cells. Raises UnreadableError with the reason.

    >>> code_cells(b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": ["k = ", "3"]}]}')
    ['k = 3']
    """
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise UnreadableError("the notebook is damaged: it is not JSON") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise UnreadableError("the notebook is damaged: it has no list of cells")
    if len(cells) > CELL_LIMIT:
        raise UnreadableError(f"the notebook has {len(cells):,} cells: at most {CELL_LIMIT:,} are read")
    sources = []
    for cell in cells:
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            source = cell.get("source", "")
            lines = source if isinstance(source, list) else [source]
            if not all(isinstance(line, str) for line in lines):
                raise UnreadableError("the notebook is damaged: a cell's source is no text")
            sources.append("".join(lines))
    if sum(map(len, sources)) > CODE_LIMIT:
        raise UnreadableError(f"the notebook holds more than {CODE_LIMIT:,} characters of code")
    return sources


def _read_folder(folder, student: str, exercise: str) -> bytes | None:
    name = f"{exercise}.ipynb"
    for path in ([student, name], [student, exercise, name]):
        data = _read_file(folder, path, NOTEBOOK_LIMIT)
        if data is not None:
            return data
    return None


def _read_file(folder, path: list[str], limit: int) -> bytes | None:
    """A regular file below the folder, opened step by step so that no part of the path is a link."""
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    shown = "/".join(path[1:]) or path[0]
    try:
        for part in path:
            try:
                status = os.stat(part, dir_fd=here, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                return None
            if stat.S_ISLNK(status.st_mode):
                raise UnreadableError(f"{part} is a link: links are not followed")
            step = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
            os.close(here)
            here = step
        status = os.fstat(here)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError(f"{shown} is no file")
        with os.fdopen(os.dup(here), "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UnreadableError(f"{shown} cannot be read: {error.strerror}") from None
    finally:
        os.close(here)
    if len(data) > limit:
        raise UnreadableError(f"{shown} is larger than {limit // 2**20} MiB")
    return data


def _read_zip(folder, student: str, exercise: str) -> bytes | None:
    name = f"{exercise}.ipynb"
    data = next((data for end in (".zip", ".ZIP") if (data := _read_file(folder, [student + end], ZIP_LIMIT))), None)
    if data is None:
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = [member for member in archive.infolist() if PurePosixPath(member.filename).name == name]
            found = [member for member in found if not member.filename.startswith("__MACOSX/")]
            if not found:
                return None
            if len(found) > 1:
                raise UnreadableError(f"the zip file holds {name} {len(found)} times")
            return _read_member(archive, found[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError("the zip file is damaged or encrypted") from None


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    path = PurePosixPath(member.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in member.filename:
        raise UnreadableError("the notebook's path in the zip file leads out of it")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise UnreadableError("the notebook in the zip file is a link: links are not followed")
    if member.compress_type not in PLAIN_METHODS:
        raise UnreadableError(
            "the zip file is compressed in an unusual way: make it with the usual tool of your system"
        )
    if member.file_size > NOTEBOOK_LIMIT:
        raise UnreadableError(f"the notebook in the zip file is larger than {NOTEBOOK_LIMIT // 2**20} MiB")
    with archive.open(member) as file:
        data = file.read(NOTEBOOK_LIMIT + 1)
    if len(data) > NOTEBOOK_LIMIT:
        raise UnreadableError(f"the notebook in the zip file is larger than {NOTEBOOK_LIMIT // 2**20} MiB")
    return data
