"""A person's own images: one sub-folder a class, or one folder of images without labels."""

from pathlib import Path

import numpy as np
import torch

from course_utils.data.splits import cut
from course_utils.data.store import DataError
from course_utils.data.types import DataCard, Dataset, Split

CARD = DataCard(
    title="Your own images: folder:PATH",
    kind="real",
    source="the folder you name",
    licence="yours",
    note="cut to a square around the middle, then scaled; transparent parts become white",
)

ROLES = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}


def folder(path: str | Path, *, seed: int, size: int = 28, colour: bool = False) -> Dataset:
    """The images under `path` as uint8 (N, 1, size, size), or (N, 3, size, size) with `colour`.

    Each sub-folder is a class, `y` (N,) int64 in the sorted order of their names. With no sub-folders `y` is None and
    `class_names` is (). The split is 80 / 10 / 10, stratified, by seed, unless there are folders `train` and `test`
    (and, if you like, `validation` or `val`; without it a tenth of `train` is held out).

    Raises DataError for a folder that is missing or has too few images, a file that cannot be read (named), images
    beside class folders, or a class that only a test folder has; ValueError for a size under 1.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as here:
    ...     for i in range(10):
    ...         Image.new("L", (40, 30), 20 * i).save(f"{here}/{i}.png")
    ...     splits = folder(here, seed=0)
    >>> splits.train.x.shape, splits.train.y, len(splits.validation), len(splits.test)
    (torch.Size([8, 1, 28, 28]), None, 1, 1)
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: folder:PATH wants one that holds images")
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be a positive whole number of pixels, got {size!r}")
    roles = {role: next((root / n for n in names if (root / n).is_dir()), None) for role, names in ROLES.items()}
    official = roles["train"] is not None and roles["test"] is not None
    names = _class_names(roles["train"] if official else root)
    if official:
        train, test = (_read(roles[role], names, size, colour) for role in ("train", "test"))
        if roles["validation"] is not None:
            validation = _read(roles["validation"], names, size, colour)
        else:
            validation, train = _held_out(train, 1, root, seed)
    else:
        validation, test, train = _held_out(_read(root, names, size, colour), 2, root, seed)
    return Dataset(f"folder:{path}", train, validation, test, names, CARD)


def _held_out(whole: Split, parts: int, root: Path, seed: int) -> list[Split]:
    """`parts` tenths, each of at least one image, and the rest."""
    if len(whole) <= parts:
        raise DataError(f"{root} has only {len(whole)} images to split: put at least {parts + 1} there")
    return cut(whole, [max(1, round(len(whole) / 10))] * parts, seed=seed)


def _images(root: Path) -> list[Path]:
    """Every image file under `root`, in the order of names; hidden files and other kinds of file are passed over."""
    from PIL import Image

    kinds = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found = (path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in kinds and path.is_file())
    return [root / path for path in sorted(found) if not any(part.startswith(".") for part in path.parts)]


def _class_names(root: Path) -> tuple[str, ...]:
    """The sub-folders of `root` that hold images, sorted; () when the images lie in `root` itself."""
    parents = {path.relative_to(root).parts[0] if path.parent != root else "" for path in _images(root)}
    if not parents:
        raise DataError(f"{root} holds no images that Pillow can read, neither there nor in sub-folders")
    if len(parents) > 1 and "" in parents:
        raise DataError(f"{root} has images both beside and inside its sub-folders: put each into its class's folder")
    return tuple(sorted(parents - {""}))


def _read(root: Path, names: tuple[str, ...], size: int, colour: bool) -> Split:
    """All images under `root`, labelled by the sub-folder they are in when there are classes."""
    from tqdm import tqdm

    found = _class_names(root)
    if not set(found) <= set(names) or bool(found) != bool(names):
        raise DataError(f"{root} has the classes {found}, but the training folder has {names}: give them the same ones")
    paths = _images(root)
    x = np.stack([_pixels(path, size, colour) for path in tqdm(paths, "reading images", delay=2, leave=False)])
    y = torch.tensor([names.index(path.relative_to(root).parts[0]) for path in paths]) if names else None
    return Split(torch.from_numpy(x), y)


def _pixels(path: Path, size: int, colour: bool) -> np.ndarray:
    """One image as uint8 (C, size, size): turned as its camera says, cut to a square, scaled."""
    from PIL import Image, ImageOps

    mode = "RGB" if colour else "L"
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"its pixels are of mode {image.mode}, save it with 8 bits a channel")
            image.draft(mode, (2 * size, 2 * size))  # lets a JPEG be decoded small, which is far faster
            image = ImageOps.exif_transpose(image)
            if image.has_transparency_data:
                ground = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(ground, image.convert("RGBA"))
            image = ImageOps.fit(image.convert(mode), (size, size), Image.Resampling.BICUBIC)
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    return np.asarray(image).reshape(size, size, -1).transpose(2, 0, 1)
