"""The catalogue: every data set by name, one call to load any of them, and where each is on this machine."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral
from pathlib import Path

from course_utils.data import bundled, customers, folder, glyphs, moving_glyphs, public, text
from course_utils.data.splits import finish
from course_utils.data.store import RemoteFile, find, is_offline, missing
from course_utils.data.text import TextDataset
from course_utils.data.types import DataCard, Dataset

SIZES = ("n_train", "n_validation", "n_test")


@dataclass(frozen=True)
class Entry:
    """A row of the catalogue: its card, its size as `Dataset` prints it, what loads it, and its files if it has any.

    `load` takes `seed` and the set's own options by keyword; what it does not take of `n_train`, `n_validation` and
    `n_test` is done for it. `files` names the published files and `megabytes` their size; `place` says where a set
    without files comes from, if not from scikit-learn. What is text is loaded by `load_text`.
    """

    card: DataCard
    size: str
    load: Callable[..., Dataset | TextDataset]
    files: Callable[[], Sequence[RemoteFile]] | None = None
    megabytes: int = 0
    place: str = ""

    @property
    def is_text(self) -> bool:
        """Whether the set is made of documents, and not of tensors."""
        return self.load.__module__ == text.__name__

    def options(self) -> list[str]:
        """The names of the options that the set takes."""
        parameters = inspect.signature(self.load).parameters.values()
        own = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "seed"]
        return own + [name for name in SIZES if name not in own]


CATALOGUE: dict[str, Entry] = {
    "glyphs": Entry(glyphs.CARD, "20,000 / 5,000 / 5,000 of 1×28×28, 26 classes", glyphs.glyphs),
    "moving_glyphs": Entry(
        moving_glyphs.CARD, "5,000 / 1,000 / 1,000 of 6×1×28×28, 26 classes", moving_glyphs.moving_glyphs
    ),
    "mnist": Entry(
        public.MNIST, "55,000 / 5,000 / 10,000 of 1×28×28, 10 classes", public.mnist, public.mnist_files, 12
    ),
    "fashion_mnist": Entry(
        public.FASHION_MNIST,
        "55,000 / 5,000 / 10,000 of 1×28×28, 10 classes",
        public.fashion_mnist,
        public.fashion_mnist_files,
        31,
    ),
    "cifar10": Entry(
        public.CIFAR10, "45,000 / 5,000 / 10,000 of 3×32×32, 10 classes", public.cifar10, public.cifar10_files, 170
    ),
    "cifar10_subset": Entry(
        public.CIFAR10_SUBSET,
        "3,600 / 400 / 1,000 of 3×32×32, 10 classes",
        public.cifar10_subset,
        public.cifar10_subset_files,
    ),
    "pneumonia_mnist": Entry(
        public.PNEUMONIA_MNIST,
        "4,708 / 524 / 624 of 1×28×28, 2 classes",
        public.pneumonia_mnist,
        public.pneumonia_mnist_files,
        4,
    ),
    "digits": Entry(bundled.DIGITS, "1,079 / 359 / 359 of 1×8×8, 10 classes", bundled.digits),
    "breast_cancer": Entry(bundled.BREAST_CANCER, "341 / 114 / 114 of 30, 2 classes", bundled.breast_cancer),
    "wine": Entry(bundled.WINE, "106 / 36 / 36 of 13, 3 classes", bundled.wine),
    "iris": Entry(bundled.IRIS, "90 / 30 / 30 of 4, 3 classes", bundled.iris),
    "customers": Entry(customers.CUSTOMERS, "1,200 / 400 / 400 of 9, 5 classes", customers.customers),
    "wholesale": Entry(
        customers.WHOLESALE, "264 / 88 / 88 of 6, 2 classes", customers.wholesale, customers.wholesale_files
    ),
    "python_docs": Entry(
        text.PYTHON_DOCS, "some 30,000 sentences", text.python_docs, place="with Python and the packages"
    ),
    "tiny_shakespeare": Entry(
        text.TINY_SHAKESPEARE,
        "145 / 18 / 18 documents, a million letters",
        text.tiny_shakespeare,
        text.tiny_shakespeare_files,
        1,
    ),
    "wikitext_2": Entry(text.WIKITEXT_2, "54 / 6 / 62 articles", text.wikitext_2, text.wikitext_2_files),
    "folder": Entry(folder.CARD, "your own images: folder:PATH", folder.folder),
}


def load(name: str, *, seed: int = 0, **options) -> Dataset:
    """The data set `name`, split into train, validation and test.

    Images are float32 (N, C, H, W) in [0, 1], clips (N, T, C, H, W), tables float32 (N, D), labels int64 (N,).
    `folder:PATH` loads your own images. Every set takes `n_train`, `n_validation` and `n_test`, the sizes of
    class-balanced random subsets; `glyphs`, `moving_glyphs` and `folder` take more. `seed` decides what is drawn, held
    out and chosen: the same seed gives the same splits.

    Public sets come from `$COURSE_DATA`, else from `data/`, else by a checked download that `COURSE_OFFLINE=1` forbids.

    Raises ValueError for an unknown name or a size out of range, TypeError for an option the set does not take,
    DataError when its files are missing, damaged or cannot be fetched.

    >>> load("iris", n_train=30)
    iris (real): 30 / 30 / 30 train / validation / test of 4, 3 classes
    """
    entry, path = _find_entry(name)
    if entry.is_text:
        raise ValueError(f"{name!r} is text: load it with load_text({name!r})")
    seed = _whole(seed)
    unknown = [option for option in options if option not in entry.options()]
    if unknown:
        raise TypeError(f"{name!r} takes no option {unknown[0]!r}: it takes {', '.join(entry.options())}")
    own = inspect.signature(entry.load).parameters
    stored = entry.load(*path, seed=seed, **{key: value for key, value in options.items() if key in own})
    return finish(stored, seed=seed, **{key: value for key, value in options.items() if key not in own})


def load_text(name: str, *, seed: int = 0) -> TextDataset:
    """The text set `name`: train, validation and test are tuples of documents, each with a name and its sentences.

    Documents are cut apart by `seed`, 80 / 10 / 10 where there is no official split, and a held-out sentence is left
    out where half of its runs of five words stand in a part before its own.

    Raises ValueError for an unknown name or a set that is not text, and DataError when its files are missing.

    >>> splits = load_text("python_docs")
    >>> len(splits.test) > 50, splits.train[0].name.split(".")[0]
    (True, 'python')
    """
    entry, _ = _find_entry(name)
    if not entry.is_text:
        texts = ", ".join(other for other, row in CATALOGUE.items() if row.is_text)
        raise ValueError(f"{name!r} is not text: load it with load({name!r}), or take one of {texts}")
    return entry.load(seed=_whole(seed))


def _whole(seed) -> int:
    if not isinstance(seed, Integral):
        raise TypeError(f"seed must be a whole number, got {seed!r}")
    return int(seed)


def locate(name: str) -> Path:
    """The folder on this machine that holds the files of `name`; nothing is downloaded.

    Raises ValueError for an unknown name or a set that has no files, DataError when the files are not here.
    """
    entry, path = _find_entry(name)
    if path:
        return Path(path[0]).expanduser()
    if entry.files is None:
        made = "is generated" if entry.card.kind == "generated" else f"comes {entry.place or 'with scikit-learn'}"
        raise ValueError(f"{name!r} {made}: it has no files of its own")
    found = find(entry.files())
    if found is None:
        raise missing(name, entry.files())
    return found[0].parent


def describe() -> str:
    """One line a data set: name, kind, sizes of train / validation / test, and where it is or would come from.

    >>> print(describe().splitlines()[0])
    glyphs           generated  20,000 / 5,000 / 5,000 of 1×28×28, 26 classes   made here, from a seed
    """
    return "\n".join(
        f"{name:15s}  {entry.card.kind:9s}  {entry.size:46s}  {_where(name, entry)}"
        for name, entry in CATALOGUE.items()
    )


def _where(name: str, entry: Entry) -> str:
    if name == "folder":
        return "where you keep them"
    if entry.files is None:
        return "made here, from a seed" if entry.card.kind == "generated" else entry.place or "in scikit-learn"
    found = find(entry.files())
    if found is not None:
        return f"in {found[0].parent}"
    if not entry.megabytes:
        return "not here, has no download"
    size = f"{entry.megabytes} MB"
    return f"not here ({size}; COURSE_OFFLINE is set)" if is_offline() else f"would be downloaded ({size})"


def _find_entry(name: str) -> tuple[Entry, tuple[str, ...]]:
    """The row of the catalogue and, for `folder:PATH`, the path as the loader's first argument."""
    kind, colon, path = str(name).partition(":")
    if kind == "folder":
        if not path:
            raise ValueError(f'a folder of your own images is loaded as load("folder:PATH"), got {name!r}')
        return CATALOGUE["folder"], (path,)
    if colon or name not in CATALOGUE:
        close = get_close_matches(str(name).lower().replace("-", "_"), CATALOGUE, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"there is no data set {name!r}: {hint}The catalogue has {', '.join(CATALOGUE)}")
    return CATALOGUE[name], ()
