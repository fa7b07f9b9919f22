"""A person's own images load with the labels their folders give; what cannot be read is named."""

import numpy as np
import pytest
import torch
from PIL import Image

from course_utils.data import DataError, load


def save(path, value=0, size=(40, 40), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


@pytest.fixture
def pets(tmp_path):
    """60 cats (dark) and 40 dogs (light); pixel value tells the two apart."""
    for i in range(60):
        save(tmp_path / "pets" / "cat" / f"{i}.png", i)
    for i in range(40):
        save(tmp_path / "pets" / "dog" / "more" / f"{i}.jpg", 200 + i)
    return tmp_path / "pets"


def parts(splits):
    return splits.train, splits.validation, splits.test


def test_sub_folders_are_classes_split_80_10_10_and_stratified(pets):
    splits = load(f"folder:{pets}")
    assert splits.class_names == ("cat", "dog")
    assert splits.name == f"folder:{pets}"
    assert [part.y.bincount().tolist() for part in parts(splits)] == [[48, 32], [6, 4], [6, 4]]
    for part in parts(splits):
        assert part.x.dtype == torch.float32
        assert part.x.shape[1:] == (1, 28, 28)
        assert torch.equal(part.y == 1, part.x.mean((1, 2, 3)) > 0.5)


def test_every_image_is_in_exactly_one_part(pets):
    splits = load(f"folder:{pets}")
    levels = torch.cat([(part.x.mean((1, 2, 3)) * 255).round() for part in parts(splits)]).sort().values
    assert levels.tolist() == [*range(60), *range(200, 240)]


def test_the_seed_decides_the_split(pets):
    first, again, other = (load(f"folder:{pets}", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.train.x, again.train.x)
    assert not torch.equal(first.test.x, other.test.x)


def test_subset_sizes_work_as_for_any_set(pets):
    assert load(f"folder:{pets}", n_train=10).train.y.bincount().tolist() == [5, 5]


def test_a_folder_without_sub_folders_has_no_labels(tmp_path):
    for i in range(20):
        save(tmp_path / f"{i}.png", i)
    splits = load(f"folder:{tmp_path}")
    assert splits.class_names == ()
    assert [(len(part), part.y) for part in parts(splits)] == [(16, None), (2, None), (2, None)]


@pytest.mark.parametrize("validation", ["validation", "val", None])
def test_folders_named_train_and_test_are_kept_as_they_are(tmp_path, validation):
    roles = {"train": (20, 0), "test": (3, 100), validation: (4, 200)}
    for role, (n, level) in roles.items():
        for i in range(n if role else 0):
            for name in ("a", "b"):
                save(tmp_path / role / name / f"{i}.png", level + i)
    splits = load(f"folder:{tmp_path}")
    assert splits.class_names == ("a", "b")
    assert splits.test.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert (splits.test.x * 255).round().unique().tolist() == [100, 101, 102]
    if validation:
        assert (len(splits.train), len(splits.validation)) == (40, 8)
        assert splits.validation.x.min() * 255 >= 199
    else:
        assert splits.train.y.bincount().tolist() == [18, 18]
        assert splits.validation.y.bincount().tolist() == [2, 2]


def test_a_class_that_only_the_test_folder_has_is_refused(tmp_path):
    for path in ("train/a/0.png", "train/a/1.png", "test/b/0.png"):
        save(tmp_path / path)
    with pytest.raises(DataError, match=r"test has the classes \('b',\), but the training folder has \('a',\)"):
        load(f"folder:{tmp_path}")


def test_size_and_colour_are_as_asked(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", (255, 0, 51), mode="RGB")
    splits = load(f"folder:{tmp_path}", size=12, colour=True)
    assert splits.train.x.shape == (1, 3, 12, 12)
    assert splits.train.x[0, :, 5, 5].tolist() == pytest.approx([1, 0, 0.2])
    assert load(f"folder:{tmp_path}").train.x.shape == (1, 1, 28, 28)


def test_images_are_cut_to_the_square_in_the_middle_not_squashed(tmp_path):
    wide = np.zeros((30, 90), dtype=np.uint8)
    wide[:, 30:60] = 255
    for i in range(3):
        Image.fromarray(wide).save(tmp_path / f"{i}.png")
    assert load(f"folder:{tmp_path}").train.x.min() > 0.98


def test_photographs_are_turned_as_the_camera_says(tmp_path):
    upright = np.zeros((32, 32), dtype=np.uint8)
    upright[:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn by 90 degrees clockwise to show
    for i in range(3):
        Image.fromarray(np.rot90(upright).copy()).save(tmp_path / f"{i}.jpg", exif=exif)
    x = load(f"folder:{tmp_path}").train.x[0, 0]
    assert x[:12].min() > 0.9
    assert x[16:].max() < 0.1


def test_transparent_parts_become_white(tmp_path):
    drawing = np.zeros((32, 32, 4), dtype=np.uint8)  # black everywhere, seen only in the left half
    drawing[:, :16, 3] = 255
    for i in range(3):
        Image.fromarray(drawing).save(tmp_path / f"{i}.png")
    x = load(f"folder:{tmp_path}", size=32).train.x[0, 0]
    assert x[:, :16].max() == 0
    assert x[:, 16:].min() == 1


@pytest.mark.parametrize(
    ("mode", "ending"), [("1", "png"), ("P", "gif"), ("RGB", "bmp"), ("RGB", "webp"), ("CMYK", "tif"), ("LA", "png")]
)
def test_what_pillow_reads_is_read(tmp_path, mode, ending):
    for i in range(3):
        Image.new("RGB", (20, 20), "white").convert(mode).save(tmp_path / f"{i}.{ending.upper()}")
    assert load(f"folder:{tmp_path}").train.x.mean() > 0.95


def test_other_files_and_hidden_ones_are_passed_over(pets):
    (pets / "notes.txt").write_text("not an image")
    (pets / ".DS_Store").write_bytes(b"\0")
    save(pets / ".ipynb_checkpoints" / "0.png")
    (pets / "empty").mkdir()
    assert load(f"folder:{pets}").class_names == ("cat", "dog")


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_a_file_that_cannot_be_read_is_named(pets, content):
    (pets / "cat" / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"cat.bad\.png cannot be read as an image"):
        load(f"folder:{pets}")


def test_a_truncated_photograph_is_named(pets):
    path = pets / "dog" / "half.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:800])
    with pytest.raises(DataError, match=r"half\.jpg cannot be read as an image"):
        load(f"folder:{pets}")


def test_16_bit_images_are_refused_rather_than_clipped(pets):
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(pets / "cat" / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png cannot be read as an image: its pixels are of mode I;16, save it"):
        load(f"folder:{pets}")


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_images_to_split_are_refused(tmp_path, n):
    for i in range(n):
        save(tmp_path / f"{i}.png")
    with pytest.raises(DataError, match="put at least 3 there" if n else "holds no images"):
        load(f"folder:{tmp_path}")


def test_images_beside_class_folders_are_refused(pets):
    save(pets / "stray.png")
    with pytest.raises(DataError, match="beside and inside its sub-folders"):
        load(f"folder:{pets}")


def test_a_path_that_is_not_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere is not a folder"):
        load(f"folder:{tmp_path}/nowhere")


@pytest.mark.parametrize("size", [0, -1, 2.5, "28"])
def test_a_size_that_is_no_number_of_pixels_is_refused(pets, size):
    with pytest.raises(ValueError, match="size must be a positive whole number of pixels"):
        load(f"folder:{pets}", size=size)
