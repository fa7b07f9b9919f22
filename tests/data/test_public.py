"""Public sets are read exactly, keep their official test part, and nothing is unpickled before its md5 is right."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from course_utils.data import DataError, load
from course_utils.data.public import MEDMNIST_SIZES


def put_mnist(folder, contents):
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in contents.items():
        (raw / name).write_bytes(content)


def numbers(split):
    """The number that each image of the tiny MNIST carries in its first pixel."""
    return (split.x[:, 0, 0, 0] * 255).round().long()


def test_idx_files_are_read_exactly_and_in_torchvisions_layout(home, tiny_mnist):
    put_mnist(home.shared, tiny_mnist)
    splits = load("mnist")
    assert splits.test.x.dtype == torch.float32
    assert splits.test.x.shape == (24, 1, 28, 28)
    assert torch.equal(numbers(splits.test), torch.arange(24))  # the official test, in its order
    assert (splits.test.x[:, 0, 1, 2] == 1).all()
    assert splits.test.x[0].sum() == 1
    assert splits.test.y.dtype == torch.int64
    assert torch.equal(splits.test.y, torch.arange(24) % 10)
    assert splits.class_names == tuple("0123456789")


def test_validation_is_a_stratified_twelfth_of_the_training_part(home, tiny_mnist):
    put_mnist(home.shared, tiny_mnist)
    splits = load("mnist", seed=5)
    assert splits.validation.y.bincount().tolist() == [1] * 10
    assert splits.train.y.bincount().tolist() == [11] * 10
    both = torch.cat([numbers(splits.train), numbers(splits.validation)])
    assert both.sort().values.tolist() == list(range(120))
    assert torch.equal(splits.train.y, numbers(splits.train) % 10)


def test_the_seed_decides_what_is_held_out_and_the_test_stays(home, tiny_mnist):
    put_mnist(home.shared, tiny_mnist)
    first, again, other = (load("mnist", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.train.x, again.train.x)
    assert set(numbers(first.validation).tolist()) != set(numbers(other.validation).tolist())
    assert torch.equal(first.test.x, other.test.x)


def test_loading_from_the_shared_folder_writes_nothing_there(home, tiny_mnist, server, snapshot):
    put_mnist(home.shared, tiny_mnist)
    before = snapshot(home.shared)
    load("mnist")
    assert snapshot(home.shared) == before
    assert not home.own.exists()
    assert server.asked == []


def test_mnist_is_downloaded_once_then_found_offline(home, tiny_mnist, server, monkeypatch):
    online = load("mnist")
    assert len(server.asked) == 4
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    assert torch.equal(load("mnist").train.x, online.train.x)
    assert list(home.shared.iterdir()) == []


def test_a_file_damaged_by_one_byte_is_refused(home, tiny_mnist):
    name = "t10k-images-idx3-ubyte.gz"
    tiny_mnist[name] = gzip.compress(gzip.decompress(tiny_mnist[name])[:-1] + b"\1", mtime=0)
    put_mnist(home.shared, tiny_mnist)
    with pytest.raises(DataError, match=rf"{name} is damaged"):
        load("mnist")


def tiny_cifar10(first_batch=None):
    """An archive in CIFAR-10's layout with 20 images a batch; a pixel is 70 × channel + row + number of its image."""
    number, channel, row, _ = np.indices((20, 3, 32, 32))
    batch = {"data": (70 * channel + row + number).astype(np.uint8).reshape(20, 3072), "labels": list(range(10)) * 2}
    names = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    members = {"batches.meta": {"label_names": names}, "test_batch": batch}
    members |= {f"data_batch_{i}": batch for i in range(5, 0, -1)}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, value in {**members, "readme.html": "not a batch"}.items():
            data = first_batch if first_batch and name == "data_batch_1" else pickle.dumps(value)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def test_cifar10_is_read_from_its_archive_channels_first(home, monkeypatch):
    from torchvision.datasets import CIFAR10

    content = tiny_cifar10()
    (home.shared / CIFAR10.filename).write_bytes(content)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(content).hexdigest())
    splits = load("cifar10")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [90, 10, 20]
    assert splits.test.x.shape == (20, 3, 32, 32)
    number, channel, row, _ = np.indices((20, 3, 32, 32))
    assert np.array_equal((splits.test.x * 255).round().int(), 70 * channel + row + number)
    assert splits.test.y.tolist() == list(range(10)) * 2
    assert splits.validation.y.bincount().tolist() == [1] * 10
    assert splits.class_names[:3] == ("plane", "car", "bird")


class Canary:
    """A pickle that writes a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_not_opened_before_its_md5_is_right(home, tmp_path):
    content = tiny_cifar10(first_batch=pickle.dumps(Canary(tmp_path / "opened")))
    (home.shared / "cifar-10-python.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        load("cifar10")
    assert not (tmp_path / "opened").exists()


def medmnist(**changed):
    arrays = {}
    for part, n in MEDMNIST_SIZES.items():
        arrays[f"{part}_images"] = np.full((n, 28, 28), 51, dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(n)[:, None] % 4 > 0).astype(np.uint8)
    return {**arrays, **changed}


def put_medmnist(folder, arrays):
    path = folder / "medmnist" / "pneumoniamnist.npz"
    path.parent.mkdir()
    np.savez(path, **arrays)
    return path


def test_a_reordered_pneumonia_mnist_is_accepted_and_its_card_says_so(home):
    put_medmnist(home.shared, medmnist())
    splits = load("pneumonia_mnist")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [4708, 524, 624]
    assert splits.train.x.shape[1:] == (1, 28, 28)
    assert splits.train.x.unique().tolist() == pytest.approx([0.2])
    assert splits.test.y[:5].tolist() == [0, 1, 1, 1, 0]
    assert splits.class_names == ("normal", "pneumonia")
    assert "this copy is not the published file" in splits.card.note


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"train_images": np.zeros((4708, 28, 27), np.uint8)}, r"train_images is uint8 \(4708, 28, 27\)"),
        ({"val_images": np.zeros((524, 28, 28), np.float32)}, r"val_images is float32"),
        ({"test_labels": np.zeros((624, 1), np.float64)}, r"test_labels is float64"),
    ],
)
def test_an_array_of_another_shape_or_type_is_refused_by_name(home, changed, words):
    path = put_medmnist(home.shared, medmnist(**changed))
    with pytest.raises(DataError, match=words) as caught:
        load("pneumonia_mnist")
    assert str(path) in str(caught.value)


def test_a_pickle_in_an_npz_file_is_never_opened(home, tmp_path):
    labels = np.full((624, 1), Canary(tmp_path / "opened"), dtype=object)
    put_medmnist(home.shared, medmnist(test_labels=labels))
    with pytest.raises(DataError, match="cannot be read"):
        load("pneumonia_mnist")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: b"", lambda content: b"x" * 100])
def test_a_damaged_npz_file_is_refused_by_name(home, damage):
    path = put_medmnist(home.shared, medmnist())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"pneumoniamnist\.npz cannot be read"):
        load("pneumonia_mnist")


def test_a_missing_array_is_refused_by_name(home):
    arrays = medmnist()
    del arrays["val_labels"]
    put_medmnist(home.shared, arrays)
    with pytest.raises(DataError, match="val_labels"):
        load("pneumonia_mnist")


@pytest.mark.real_data
def test_mnist_is_what_torchvision_reads(tmp_path):
    import shutil

    from torchvision.datasets import MNIST

    shutil.copytree(Path(os.environ["COURSE_DATA"], "MNIST"), tmp_path / "MNIST")
    theirs = MNIST(tmp_path, train=False, download=True)
    ours = load("mnist")
    assert torch.equal((ours.test.x[:, 0] * 255).round().byte(), theirs.data)
    assert torch.equal(ours.test.y, theirs.targets)
    both = torch.cat([ours.train.y, ours.validation.y]).bincount()
    assert torch.equal(both, MNIST(tmp_path, train=True).targets.bincount())


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("mnist", (55_000, 5_000, 10_000)),
        ("pneumonia_mnist", (4_708, 524, 624)),
        ("cifar10_subset", (3_600, 400, 1_000)),
    ],
)
def test_real_sets_have_their_published_sizes_and_stratified_splits(name, sizes):
    splits = load(name, seed=1)
    parts = (splits.train, splits.validation, splits.test)
    assert tuple(map(len, parts)) == sizes
    for part in parts:
        assert part.x.dtype == torch.float32
        assert part.x.is_contiguous()
        assert 0 == part.x.min() < 0.9 < part.x.max() <= 1
        assert part.y.unique().tolist() == list(range(len(splits.class_names)))
    share = [part.y.bincount() / len(part) for part in parts[:2]]
    assert torch.allclose(*share, atol=0.01)


@pytest.mark.real_data
def test_the_cifar10_subset_has_its_colours_in_the_second_place():
    with np.load(Path(os.environ["COURSE_DATA"], "cifar10-subset", "cifar10_subset.npz")) as archive:
        stored = archive["test_images"]
    for c in range(3):
        assert np.array_equal((load("cifar10_subset").test.x[:, c] * 255).round().int(), stored[..., c])


@pytest.mark.real_data
def test_real_subsets_are_class_balanced():
    splits = load("mnist", n_train=1_000, n_validation=100, n_test=50)
    assert splits.train.y.bincount().tolist() == [100] * 10
    assert splits.validation.y.bincount().tolist() == [10] * 10
    assert splits.test.y.bincount().tolist() == [5] * 10


@pytest.mark.real_data
def test_no_image_of_the_mnist_training_part_is_in_its_validation_part():
    splits = load("mnist")
    train, validation = ({row.tobytes() for row in part.x.numpy()} for part in (splits.train, splits.validation))
    assert len(train) == 55_000  # MNIST's training images are all different, so the sets tell
    assert not train & validation


@pytest.mark.real_data
def test_pneumonia_mnist_has_the_published_number_of_images_a_class():
    splits = load("pneumonia_mnist")
    counts = [part.y.bincount().tolist() for part in (splits.train, splits.validation, splits.test)]
    assert counts == [[1214, 3494], [135, 389], [234, 390]]
