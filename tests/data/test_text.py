"""Texts: what counts as a sentence, and parts of a set that share none."""

import re
from dataclasses import replace

import pytest

from course_utils.data import DataError, Document, load_text
from course_utils.data.text import _split, _without_copies, _without_repeats, sentences_of

DOCSTRING = """Compute the mean of ``x`` along an *axis*.

    The mean is the sum of all values, divided by their number. Values that are
    not finite spoil it, e.g. one infinity is enough. See :func:`~numpy.nanmean` [1]_ for
    another way to do it.

    Parameters
    ----------
    x : array_like
        Array of the values that are to be averaged.
    axis : int
        no sentence, as it begins small.

    - Items of a list are sentences as well, if
      they are long enough.
    - Short ones.

    >>> mean([1, 2]) gives the value of the mean.
    1.5 is the mean of these two numbers.

    .. math:: \\\\sum x = 3 is no sentence either, of course.
    """


def test_sentences_are_the_prose_of_a_docstring_without_its_markup():
    assert list(sentences_of(DOCSTRING)) == [
        "Compute the mean of x along an axis.",
        "The mean is the sum of all values, divided by their number.",
        "Values that are not finite spoil it, e.g. one infinity is enough.",
        "See nanmean for another way to do it.",
        "Array of the values that are to be averaged.",
        "Items of a list are sentences as well, if they are long enough.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Too short a one.",
        "it begins with a small letter here.",
        "It does not end with a full stop",
        "Word " * 61 + "end.",
        "Set x = 1 before the call of this.",
        "Look at https://example.org for more about it.",
        "Take 3 4 5 6 7 8 of the 9 words.",
        "",
    ],
)
def test_what_is_no_sentence_is_left_out(text):
    assert list(sentences_of(text)) == []


def fives(sentence):
    words = re.findall("[a-z]+", sentence.lower())
    return [" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))]


def everything(part):
    return [sentence for document in part for sentence in document.sentences]


@pytest.fixture(scope="module")
def docs():
    return load_text("python_docs")


def test_the_python_docs_are_plenty_and_made_of_sentences(docs):
    assert len(everything(docs.train)) > 15_000
    assert min(len(everything(part)) for part in (docs.validation, docs.test)) > 1_000
    assert all(sentence[0].isupper() and sentence[-1] == "." for sentence in everything(docs.train))
    sources = {document.name.split(".")[0] for document in docs.train}
    assert sources == {"python", "numpy", "scipy", "sklearn", "pandas", "matplotlib", "torch"}


def test_no_document_is_in_two_parts_and_no_sentence_occurs_twice(docs):
    names = [document.name for part in (docs.train, docs.validation, docs.test) for document in part]
    assert len(set(names)) == len(names)
    keys = [
        " ".join(re.findall("[a-z]+", sentence.lower()))
        for part in (docs.train, docs.validation, docs.test)
        for sentence in everything(part)
    ]
    assert len(set(keys)) == len(keys)


def test_held_out_sentences_share_less_than_half_of_their_runs_of_five_words_with_a_part_before(docs):
    known = {five for sentence in everything(docs.train) for five in fives(sentence)}
    for part in (docs.validation, docs.test):
        for sentence in everything(part):
            runs = fives(sentence)
            assert sum(run in known for run in runs) < len(runs) / 2
        known |= {five for sentence in everything(part) for five in fives(sentence)}


def test_the_split_follows_from_the_seed(docs):
    assert load_text("python_docs") == docs
    other = load_text("python_docs", seed=1)
    assert {document.name for document in other.test} != {document.name for document in docs.test}


def test_copies_go_wherever_they_are_and_near_copies_leave_the_held_out_part():
    first = Document("a", ("The mean of all values is returned here.", "Another line that is quite unlike it."))
    second = Document("b", ("The mean of ALL values is returned here!", "The mean of all values is what you get."))
    kept = list(_without_copies([first, second]))
    assert kept[1].sentences == ("The mean of all values is what you get.",)
    splits = _without_repeats("x", [kept[0]], [kept[1]], [Document("c", ("Nothing of the sort was ever said.",))], None)
    assert splits.validation[0].sentences == kept[1].sentences  # one run of five in four is known: it stays
    near = replace(second, sentences=("The mean of all values is returned by it.",))
    assert _without_repeats("x", [kept[0]], [near], [], None).validation == ()


def test_documents_are_split_eight_to_one_to_one():
    documents = [
        Document(str(i), tuple(f"{letter} said {'word ' * j}{chr(97 + i)}{letter}." for j, letter in enumerate("abcd")))
        for i in range(20)
    ]
    splits = _split("x", documents, None, seed=3)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [16, 2, 2]


def test_missing_public_texts_are_told_what_was_looked_for(home):
    with pytest.raises(DataError, match=r"looked for wikitext-2/valid\.txt, wikitext-2/test\.txt .*no download"):
        load_text("wikitext_2")


@pytest.mark.real_data
def test_wikitext_2_has_its_published_articles():
    splits = load_text("wikitext_2")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [54, 6, 62]
    assert splits.test[0].name == "Robert <unk>"
    assert splits.test[0].sentences[0] == "Robert <unk> is an English film , television and theatre actor ."


@pytest.mark.real_data
def test_tiny_shakespeare_is_cut_between_speeches():
    splits = load_text("tiny_shakespeare", seed=2)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [145, 18, 18]
    assert max(len(document.sentences) for document in splits.train) == 40
    assert any(
        "First Citizen: Before we proceed any further" in s
        for p in (splits.train, splits.validation, splits.test)
        for s in everything(p)
    )
