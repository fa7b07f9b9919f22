"""The catalogue says what there is and where, without fetching; names and options that are wrong are told right."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from course_utils.data import CATALOGUE, DataError, describe, load, load_text, locate

README = Path(__file__).parents[2] / "data" / "README.md"


@pytest.mark.parametrize(
    "name",
    [name for name, entry in CATALOGUE.items() if entry.files is None and not entry.is_text and name != "folder"],
)
def test_the_catalogue_states_the_size_that_loads(name):
    sizes, shape = CATALOGUE[name].size.split(" of ")
    assert str(load(name)) == f"{name} ({CATALOGUE[name].card.kind}): {sizes} train / validation / test of {shape}"


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["mnist", "pneumonia_mnist", "cifar10_subset"])
def test_the_catalogue_states_the_size_of_real_sets(name):
    sizes, shape = CATALOGUE[name].size.split(" of ")
    assert str(load(name)) == f"{name} (real): {sizes} train / validation / test of {shape}"


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_set_has_a_full_card(name):
    card = CATALOGUE[name].card
    assert card.kind in ("generated", "real")
    assert card.title
    assert card.source
    assert card.licence
    assert card.citation or name in ("glyphs", "folder")


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_readme_has_a_card_for_every_set(name):
    title = f"(`{name}:PATH`)" if name == "folder" else f"(`{name}`)"
    cards = {card.splitlines()[0]: card for card in re.split(r"^## ", README.read_text(encoding="utf-8"), flags=re.M)}
    (card,) = [text for heading, text in cards.items() if heading.endswith(title)]
    for word in ("size", "source", "licence", "looked up"):
        assert f"**{word}**" in card.lower()
    assert CATALOGUE[name].card.kind.capitalize() in card
    entry = CATALOGUE[name]
    if " of " in entry.size:
        sizes, shape = entry.size.split(" of ")
        assert sizes in card
        assert shape.split(", ")[0] in card
    if entry.megabytes:
        assert f"{entry.megabytes} MB" in card


def test_describe_has_one_line_a_set_and_fetches_nothing(home, server, tiny_mnist, snapshot):
    lines = describe().splitlines()
    assert [line.split()[0] for line in lines] == list(CATALOGUE)
    (mnist,) = [line for line in lines if line.startswith("mnist ")]
    assert "would be downloaded (12 MB)" in mnist
    assert server.asked == []
    assert not home.own.exists()


def test_describe_says_where_a_set_is(home, tiny_mnist):
    load("mnist")
    assert f"in {home.own / 'MNIST' / 'raw'}" in describe()


def test_describe_says_offline_when_it_is(home, monkeypatch):
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    assert "not here (170 MB; COURSE_OFFLINE is set)" in describe()
    assert "would be downloaded" not in describe()


def test_locate_names_the_folder_and_downloads_nothing(home, server, tiny_mnist):
    with pytest.raises(DataError, match=r'load\("mnist"\) downloads it'):
        locate("mnist")
    assert server.asked == []
    load("mnist")
    assert locate("mnist") == home.own / "MNIST" / "raw"


def test_locate_of_ones_own_folder_is_that_folder(tmp_path):
    assert locate(f"folder:{tmp_path}") == tmp_path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("glyphs", "is generated"),
        ("iris", "comes with scikit-learn"),
        ("python_docs", "comes with Python and the packages"),
    ],
)
def test_locate_says_which_sets_have_no_files(name, words):
    with pytest.raises(ValueError, match=f"'{name}' {words}: it has no files of its own"):
        locate(name)


@pytest.mark.parametrize("ask", [load, locate])
@pytest.mark.parametrize(
    ("name", "close"),
    [("MNIST", "mnist"), ("fashion-mnist", "fashion_mnist"), ("cifar", "cifar10"), ("glyph", "glyphs")],
)
def test_an_unknown_name_is_answered_with_the_closest_and_all_known_ones(ask, name, close):
    with pytest.raises(ValueError, match=f"there is no data set '{name}': did you mean '{close}'") as caught:
        ask(name)
    assert all(known in str(caught.value) for known in CATALOGUE)


@pytest.mark.parametrize("name", ["", "zzzz", 3, None, "mnist:small"])
def test_whatever_is_not_a_name_is_refused_as_one(name):
    with pytest.raises(ValueError, match="there is no data set"):
        load(name)


@pytest.mark.parametrize("name", ["folder", "folder:"])
def test_a_folder_without_a_path_is_told_how(name):
    with pytest.raises(ValueError, match=re.escape('load("folder:PATH")')):
        load(name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("iris", "n_train, n_validation, n_test"),
        ("mnist", "n_train, n_validation, n_test"),
        ("folder:x", "size, colour, n_train, n_validation, n_test"),
    ],
)
def test_an_unknown_option_is_answered_with_those_the_set_takes(name, options):
    with pytest.raises(TypeError, match=f"{name!r} takes no option 'colur': it takes {options}$"):
        load(name, colur=True)


def test_options_of_a_generator_reach_it():
    splits = load("glyphs", seed=1, n_train=20, n_validation=2, n_test=2, colour=True, size=20)
    assert splits.train.x.shape == (20, 3, 20, 20)


@pytest.mark.parametrize("seed", [1.5, "0", None])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(TypeError, match="seed must be a whole number, got"):
        load("iris", seed=seed)


def test_texts_and_tensors_are_each_loaded_by_their_own_function():
    with pytest.raises(ValueError, match=re.escape("'python_docs' is text: load it with load_text('python_docs')")):
        load("python_docs")
    with pytest.raises(
        ValueError, match=r"'iris' is not text: load it with load\('iris'\), or take one of python_docs"
    ):
        load_text("iris")
    with pytest.raises(TypeError, match="seed must be a whole number"):
        load_text("python_docs", seed="0")


def test_importing_the_data_room_imports_no_data_library():
    heavy = ["torchvision", "sklearn", "PIL", "matplotlib", "pandas", "requests"]
    code = f"import sys, course_utils.data; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
