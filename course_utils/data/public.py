"""Public image sets, read from their published files into arrays; torchvision knows the files, pooch fetches them.

The official test part stays the test. Validation is held out of the training part, stratified, by seed. Loaders hand
images over as they are stored, uint8 (N, C, H, W).
"""

import gzip
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from course_utils.data.splits import cut
from course_utils.data.store import DataError, RemoteFile, fetch, md5_of
from course_utils.data.types import DataCard, Dataset, Split

MNIST = DataCard(
    title="MNIST: 70,000 handwritten digits of 28×28 pixels",
    kind="real",
    source="http://yann.lecun.com/exdb/mnist/, fetched from the mirrors torchvision lists",
    licence="CC BY-SA 3.0",
    citation="LeCun, Bottou, Bengio and Haffner, Proceedings of the IEEE 86, 1998",
)
FASHION_MNIST = DataCard(
    title="Fashion-MNIST: 70,000 articles of clothing of 28×28 pixels",
    kind="real",
    source="https://github.com/zalandoresearch/fashion-mnist",
    licence="MIT",
    citation="Xiao, Rasul and Vollgraf, arXiv:1708.07747, 2017",
)
CIFAR10 = DataCard(
    title="CIFAR-10: 60,000 colour photographs of 32×32 pixels in 10 classes",
    kind="real",
    source="https://www.cs.toronto.edu/~kriz/cifar.html",
    licence="none stated; offered for download by its author",
    citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
)
CIFAR10_SUBSET = replace(
    CIFAR10,
    title="CIFAR-10 subset: 5,000 of the photographs, as JPEG left them",
    source="a copy of 400 training and 100 test images a class, in $COURSE_DATA only",
    note="re-encoded as JPEG, so pixels differ from CIFAR-10's: no figure measured on it compares with published ones",
)
PNEUMONIA_MNIST = DataCard(
    title="PneumoniaMNIST: 5,856 chest X-rays of children, 28×28 pixels, normal or pneumonia",
    kind="real",
    source="MedMNIST v2, https://zenodo.org/records/10519652",
    licence="CC BY 4.0",
    citation="Yang et al., Scientific Data 10, 2023; images: Kermany et al., Cell 172, 2018",
    note="three in four training images show pneumonia; not for clinical use",
)

MEDMNIST_SIZES = {"train": 4708, "val": 524, "test": 624}


def mnist_files() -> list[RemoteFile]:
    """The four files of MNIST: training images and labels, then test images and labels."""
    from torchvision import datasets

    return _idx_files("MNIST", datasets.MNIST)


def fashion_mnist_files() -> list[RemoteFile]:
    """The four files of Fashion-MNIST, in the order of MNIST's."""
    from torchvision import datasets

    return _idx_files("FashionMNIST", datasets.FashionMNIST)


def cifar10_files() -> list[RemoteFile]:
    """The archive of CIFAR-10's Python version."""
    from torchvision import datasets

    return [RemoteFile(datasets.CIFAR10.filename, (datasets.CIFAR10.url,), datasets.CIFAR10.tgz_md5)]


def cifar10_subset_files() -> list[RemoteFile]:
    """The one file of the CIFAR-10 subset; it has no download."""
    return [RemoteFile("cifar10-subset/cifar10_subset.npz")]


def pneumonia_mnist_files() -> list[RemoteFile]:
    """The one file of PneumoniaMNIST, with the md5 that MedMNIST publishes in its `info.py`."""
    url = "https://zenodo.org/records/10519652/files/pneumoniamnist.npz?download=1"
    return [RemoteFile("medmnist/pneumoniamnist.npz", (url,), "28209eda62fecd6e6a2d98b1501bb15f", strict=False)]


def mnist(*, seed: int) -> Dataset:
    """MNIST: 55,000 / 5,000 / 10,000 of (1, 28, 28) uint8, `y` (N,) int64 is the digit. Raises DataError."""
    return _idx_set("mnist", mnist_files(), tuple("0123456789"), MNIST, seed)


def fashion_mnist(*, seed: int) -> Dataset:
    """Fashion-MNIST: 55,000 / 5,000 / 10,000 of (1, 28, 28) uint8, `y` (N,) int64. Raises DataError."""
    from torchvision import datasets

    return _idx_set("fashion_mnist", fashion_mnist_files(), tuple(datasets.FashionMNIST.classes), FASHION_MNIST, seed)


def cifar10(*, seed: int) -> Dataset:
    """CIFAR-10: 45,000 / 5,000 / 10,000 of (3, 32, 32) uint8, `y` (N,) int64. Raises DataError.

    Its batches are pickles, which can run code: they are opened only after the archive's md5 is found right.
    """
    from torchvision import datasets

    source = datasets.CIFAR10
    parts = {"train": [name for name, _ in source.train_list], "test": [name for name, _ in source.test_list]}
    wanted = {*parts["train"], *parts["test"], source.meta["filename"]}
    (path,) = fetch("cifar10", cifar10_files())
    with tarfile.open(path) as archive:  # in the archive's order: it is compressed, so going back is slow
        batches = {
            name: pickle.load(archive.extractfile(member), encoding="latin1")
            for member in archive
            if (name := Path(member.name).name) in wanted
        }
    class_names = tuple(batches[source.meta["filename"]][source.meta["key"]])
    whole, test = (
        Split(
            torch.from_numpy(np.concatenate([batches[name]["data"] for name in part])).view(-1, 3, 32, 32),
            torch.tensor([label for name in part for label in batches[name]["labels"]]),
        )
        for part in parts.values()
    )
    validation, train = cut(whole, [len(whole) // 10], seed=seed)
    return Dataset("cifar10", train, validation, test, class_names, CIFAR10)


def cifar10_subset(*, seed: int) -> Dataset:
    """A class-balanced part of CIFAR-10: 3,600 / 400 / 1,000 of (3, 32, 32) uint8, `y` (N,) int64. Raises DataError."""
    (path,) = fetch("cifar10_subset", cifar10_subset_files())
    wanted = {f"{part}_images": (n, 32, 32, 3) for part, n in {"train": 4000, "test": 1000}.items()}
    arrays = _npz(path, {**wanted, "train_labels": (4000,), "test_labels": (1000,), "classes": (10,)})
    whole, test = (
        Split(
            torch.from_numpy(arrays[f"{part}_images"]).permute(0, 3, 1, 2).contiguous(),
            _labels(arrays[f"{part}_labels"]),
        )
        for part in ("train", "test")
    )
    validation, train = cut(whole, [len(whole) // 10], seed=seed)
    return Dataset("cifar10_subset", train, validation, test, tuple(map(str, arrays["classes"])), CIFAR10_SUBSET)


def pneumonia_mnist(*, seed: int) -> Dataset:
    """PneumoniaMNIST in its official splits: 4,708 / 524 / 624 of (1, 28, 28) uint8, `y` (N,) int64. Raises DataError.

    A copy that is already there is taken by its contents (names, shapes and dtypes of its arrays), because copies in
    another order go round; `card.note` says when the file is not byte for byte the published one.
    """
    files = pneumonia_mnist_files()
    (path,) = fetch("pneumonia_mnist", files)
    images = {f"{part}_images": (n, 28, 28) for part, n in MEDMNIST_SIZES.items()}
    arrays = _npz(path, {**images, **{f"{part}_labels": (n, 1) for part, n in MEDMNIST_SIZES.items()}})
    parts = [
        Split(torch.from_numpy(arrays[f"{part}_images"])[:, None], _labels(arrays[f"{part}_labels"][:, 0]))
        for part in MEDMNIST_SIZES
    ]
    card = PNEUMONIA_MNIST
    if md5_of(path) != files[0].md5:
        card = replace(card, note=f"{card.note}; this copy is not the published file: its order or bytes differ")
    return Dataset("pneumonia_mnist", *parts, class_names=("normal", "pneumonia"), card=card)


def _idx_files(folder: str, source) -> list[RemoteFile]:
    return [
        RemoteFile(f"{folder}/raw/{name}", tuple(mirror + name for mirror in source.mirrors), md5)
        for name, md5 in source.resources
    ]


def _idx_set(name: str, files: list[RemoteFile], class_names: tuple[str, ...], card: DataCard, seed: int) -> Dataset:
    images, labels, test_images, test_labels = map(_read_idx, fetch(name, files))
    whole, test = Split(images[:, None], labels.long()), Split(test_images[:, None], test_labels.long())
    validation, train = cut(whole, [len(whole) // 12], seed=seed)
    return Dataset(name, train, validation, test, class_names, card)


def _read_idx(path: Path) -> Tensor:
    """The uint8 array in an IDX file: two zero bytes, the type, the number of sizes, the sizes, the values."""
    content = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(content, ">i4", count=content[3], offset=4)
    values = np.frombuffer(bytearray(content), np.uint8, offset=4 + 4 * content[3])
    return torch.from_numpy(values.reshape(sizes))


def _labels(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))


def _npz(path: Path, wanted: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The arrays of an npz file, which must have these shapes: images uint8, labels whole numbers. No pickles."""
    kinds = {"images": "u1", "labels": "iu", "classes": "U"}
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in wanted}
    except Exception as error:  # a damaged archive can raise anything
        raise DataError(f"{path} cannot be read ({error}): delete it or put a good copy in its place") from error
    for name, shape in wanted.items():
        array, kind = arrays[name], kinds[name.split("_")[-1]]
        if array.shape != shape or (array.dtype != np.uint8 if kind == "u1" else array.dtype.kind not in kind):
            raise DataError(
                f"{path} is not the expected file: {name} is {array.dtype} {array.shape}, wanted {shape} of "
                f"{'uint8' if kind == 'u1' else 'integers' if kind == 'iu' else 'text'}; put a good copy in its place"
            )
    return arrays
