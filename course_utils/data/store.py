"""Where the files of public data sets are: `$COURSE_DATA`, then `data/`, then a checked and atomic download.

Nothing is ever written into `$COURSE_DATA`: it may be a read-only folder that a whole class shares.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class DataError(RuntimeError):
    """A data set is not here, cannot be fetched or is damaged; the message says what to do."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a public set: its path under a data folder, where it is published, and the md5 published with it.

    Mirrors in `urls` are tried in order; without any, the file can only be found, not fetched. `strict=False` accepts
    a file that is already there whatever its md5: its reader then checks the contents. Downloads are always checked.

    >>> RemoteFile("MNIST/raw/t10k-labels-idx1-ubyte.gz", ("https://example.org/labels.gz",), "ec29").path
    'MNIST/raw/t10k-labels-idx1-ubyte.gz'
    """

    path: str
    urls: tuple[str, ...] = ()
    md5: str = ""
    strict: bool = True


def is_offline() -> bool:
    """Whether `COURSE_OFFLINE` forbids downloads: it is set, to something other than 0."""
    return os.environ.get("COURSE_OFFLINE", "") not in ("", "0")


def shared_folder() -> Path | None:
    """The folder `$COURSE_DATA` names, or None: it is read, never written."""
    named = os.environ.get("COURSE_DATA", "")
    return Path(named).expanduser() if named else None


def own_folder() -> Path:
    """Where downloads go: `data/` of a checkout of the course, or else the user's cache folder."""
    import pooch

    project = Path(__file__).parents[2]
    if (project / "pyproject.toml").is_file() and (project / "data").is_dir():
        return project / "data"
    return Path(pooch.os_cache("course_utils")).expanduser()


def find(files: Sequence[RemoteFile]) -> list[Path] | None:
    """The paths of all the files in the first folder that has them all, or None. Nothing is read or fetched."""
    for folder in (shared_folder(), own_folder()):
        if folder is not None and all((folder / file.path).is_file() for file in files):
            return [folder / file.path for file in files]
    return None


def fetch(name: str, files: Sequence[RemoteFile]) -> list[Path]:
    """The paths of the files of the set `name`, found or downloaded, each with its md5 checked.

    Raises DataError when a file is damaged, when it is nowhere and `COURSE_OFFLINE` is set, or when no mirror gives it.
    """
    paths = find(files)
    if paths is None:
        paths = [own_folder() / file.path for file in files]
        for file, path in zip(files, paths, strict=True):
            if not path.is_file():
                _download(name, files, file, path)
    for file, path in zip(files, paths, strict=True):
        if file.strict and file.md5 and md5_of(path) != file.md5:
            raise DataError(
                f"{path} is damaged: its md5 is {md5_of(path)}, that of the published file is {file.md5}; delete it or "
                f"put a good copy in its place, then load {name!r} again"
            )
    return paths


def md5_of(path: Path) -> str:
    """The md5 of a file as 32 hexadecimal digits.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "empty").write_bytes(b"")
    ...     print(md5_of(Path(folder, "empty")))
    d41d8cd98f00b204e9800998ecf8427e
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def missing(name: str, files: Sequence[RemoteFile], failure: str = "") -> DataError:
    """The error that says what was looked for and where, and what to do; `failure` says how a download went."""
    shared = shared_folder()
    where = "$COURSE_DATA (not set)" if shared is None else f"$COURSE_DATA ({shared})"
    if shared is not None and not shared.is_dir():
        where = f"$COURSE_DATA ({shared}, which is not a folder)"
    if not all(file.urls for file in files):
        failure = "it has no download"
    elif is_offline():
        failure = "COURSE_OFFLINE is set, so nothing is downloaded: unset it to fetch the files"
    wanted = ", ".join(file.path for file in files)
    return DataError(
        f"{name!r} is not on this machine: looked for {wanted} in {where} and in {own_folder()}; "
        f'{failure or f"""load("{name}") downloads it"""}; load("glyphs") works offline'
    )


def _download(name: str, files: Sequence[RemoteFile], file: RemoteFile, path: Path) -> None:
    """Fetch one of the files by pooch, which writes beside `path` and moves it there when its md5 is right."""
    import pooch

    if is_offline() or not file.urls:
        raise missing(name, files)
    failures = []
    for url in file.urls:
        try:
            downloader = pooch.HTTPDownloader(progressbar=True)
            pooch.retrieve(url, f"md5:{file.md5}", path.name, path.parent, downloader=downloader)
            path.chmod(0o644)  # pooch leaves it to its owner alone, and a class may share it
            return
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; ValueError is a wrong md5
            failures.append(f"{url} ({_reason(error)})")
            cause = error
    raise missing(name, files, f"downloading {' and '.join(failures)} failed, so try again later") from cause


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError):
        return "what came is not the published file"
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"the server answered {status}" if status else getattr(error, "strerror", None) or type(error).__name__
