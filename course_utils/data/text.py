"""Text: documents of sentences. What every installation has, the documentation of Python, and two public sets.

A part of a set is a tuple of documents. Parts are cut between documents, and sentences that say nearly the same as one
that is learnt from are taken out of the others: documentation repeats itself, and a model would be tested on what it
has read.
"""

import functools
import importlib.util
import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from course_utils.data.store import RemoteFile, fetch
from course_utils.data.types import DataCard

PYTHON_DOCS = DataCard(
    title="Python documentation: sentences of the language reference and of docstrings of scientific packages",
    kind="real",
    source="pydoc_data.topics of the running Python; docstrings of numpy, scipy, sklearn, pandas, matplotlib, torch",
    licence="PSF-2.0 (Python); BSD-3-Clause (packages; Matplotlib's own licence is based on PSF's)",
    citation="the authors of CPython, NumPy, SciPy, scikit-learn, PyTorch, pandas and Matplotlib",
    note="what is read follows from the installed versions, so figures differ a little from one to the next",
)
TINY_SHAKESPEARE = DataCard(
    title="Tiny Shakespeare: 40,000 lines from Shakespeare's plays",
    kind="real",
    source="https://github.com/karpathy/char-rnn",
    licence="public domain (text); MIT (repository)",
    citation="Karpathy, char-rnn, 2015",
)
WIKITEXT_2 = DataCard(
    title="WikiText-2, validation and test: 120 good and featured articles of Wikipedia",
    kind="real",
    source="the validation and test parts of WikiText-2, in $COURSE_DATA only",
    licence="CC BY-SA 3.0 and GFDL",
    citation="Merity, Xiong, Bradbury and Socher, arXiv:1609.07843, 2016",
    note="the published validation part is what is trained on here, a tenth of it held out: no figure compares with "
    "published ones",
)

PACKAGES = ("numpy", "scipy", "sklearn", "pandas", "matplotlib", "torch.nn", "torch.optim", "torch.distributions")
NOT_THEIRS = ("tests", "testing", "test", "externals", "_vendor", "conftest", "distutils")
SHAKESPEARE_MD5 = "6fb458f1232090904fb40fe944165e91"


@dataclass(frozen=True)
class Document:
    """A text that belongs together: its name, such as "scipy.stats._morestats", and its sentences in order."""

    name: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class TextDataset:
    """Train, validation and test documents: choose on validation, report once on test."""

    name: str
    train: tuple[Document, ...]
    validation: tuple[Document, ...]
    test: tuple[Document, ...]
    card: DataCard

    def __str__(self) -> str:
        parts = (self.train, self.validation, self.test)
        documents = " / ".join(f"{len(part):,}" for part in parts)
        sentences = " / ".join(f"{sum(len(document.sentences) for document in part):,}" for part in parts)
        return (
            f"{self.name} ({self.card.kind}): {documents} documents, {sentences} sentences, train / validation / test"
        )

    __repr__ = __str__


def python_docs(*, seed: int) -> TextDataset:
    """The language reference, a document a topic, and the docstrings of the packages, a document a module."""
    return _split("python_docs", _python_documents(), PYTHON_DOCS, seed)


def tiny_shakespeare_files() -> list[RemoteFile]:
    """The one file of Tiny Shakespeare."""
    url = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
    return [RemoteFile("tinyshakespeare/input.txt", (url,), SHAKESPEARE_MD5)]


def tiny_shakespeare(*, seed: int) -> TextDataset:
    """A document for every 40 speeches in a row; the order of the plays is kept within it. Raises DataError."""
    (path,) = fetch("tiny_shakespeare", tiny_shakespeare_files())
    speeches = [re.sub(r"\s+", " ", speech).strip() for speech in path.read_text("utf8").split("\n\n")]
    documents = [Document(f"speech {i + 1:,} on", tuple(speeches[i : i + 40])) for i in range(0, len(speeches), 40)]
    return _split("tiny_shakespeare", documents, TINY_SHAKESPEARE, seed)


def wikitext_2_files() -> list[RemoteFile]:
    """The published validation and test parts of WikiText-2; they have no download."""
    return [RemoteFile("wikitext-2/valid.txt"), RemoteFile("wikitext-2/test.txt")]


def wikitext_2(*, seed: int) -> TextDataset:
    """A document an article: the published validation part, a tenth held out, and the published test part."""
    whole, test = (_articles(path) for path in fetch("wikitext_2", wikitext_2_files()))
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed)).tolist()
    tenth = len(whole) // 10
    validation, train = ([whole[i] for i in sorted(rows)] for rows in (order[:tenth], order[tenth:]))
    return _without_repeats("wikitext_2", train, validation, test, WIKITEXT_2)


# --- sentences


def sentences_of(text: str) -> Iterator[str]:
    """The sentences of a docstring or of a reST page: prose only, its markup taken off.

    Headings, doctests, grammar, tables and lists of names are left out: a sentence begins with a capital, ends with a
    full stop, has 5 to 60 words, and most of them are words.

    >>> list(sentences_of("Add ``x`` to *y* and return :class:`~numpy.ndarray` ``z``.\\n\\n>>> add(1, 2)\\n3"))
    ['Add x to y and return ndarray z.']
    """
    for paragraph in PARAGRAPHS.split(inspect.cleandoc(text)):
        if paragraph.count(" ") < 4 or "." not in paragraph or NO_PROSE.search(paragraph):
            continue
        for run in _of_equal_indent(paragraph.split("\n")):
            flat = " ".join(line.strip() for line in run)
            if flat.count(" ") >= 4 and "." in flat:
                yield from filter(_is_prose, SENTENCE_ENDS.split(_without_markup(flat)))


PARAGRAPHS = re.compile(r"\n\s*\n")
NO_PROSE = re.compile(r"^\s*(?:>>>|\.\.\s|\.\.\.|\||\+[-=])", re.MULTILINE)
SENTENCE_ENDS = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
LIST_ITEM = re.compile(r"\s*(?:[-*+]|\d+\.)\s+")
WORD = re.compile(r"(?<!\S)[(\"']?[A-Za-z]+(?:['’-][A-Za-z]+)*[\"')]?[.,;:]?[\"')]?(?!\S)")
BEGIN_AND_END = re.compile(r"[A-Z].*[a-z\d)]\.", re.DOTALL)
CODE = re.compile(r"[\\{}|=<>]|\w\.\w{2,}\.|https?:")
MARKUP = [
    (re.compile(pattern), plain)
    for pattern, plain in [
        (r":[\w:]+:`~?(?:[^`<]*\.)?([^`<.]*)(?:\s*<[^`]*>)?`", r"\1"),  # :class:`~a.b.c` -> c
        (r"`+([^`<]*?)(?:\s*<[^`]*>)?`+_{0,2}", r"\1"),  # ``x``, `x <url>`_ -> x
        (r"\[[\w.-]+\]_|\[\d+\]", ""),  # footnotes
        (r"(?<!\w)\*{1,2}(\S(?:[^*]*\S)?)\*{1,2}(?!\w)", r"\1"),
        (r"\s+", " "),
        (r" ([.,;])", r"\1"),
    ]
]


def _of_equal_indent(lines: list[str]) -> Iterator[list[str]]:
    """Runs of lines with one indentation; the first line of a list item stays with what hangs below it."""
    run, indent = [], None
    for line in lines:
        item = LIST_ITEM.match(line)
        start = item.end() if item else len(line) - len(line.lstrip())
        if run and (item or start != indent):
            yield run
            run = []
        run.append(line[start:])
        indent = start
    yield run


def _without_markup(text: str) -> str:
    for pattern, plain in MARKUP:
        text = pattern.sub(plain, text)
    return text.strip()


def _is_prose(sentence: str) -> bool:
    words = sentence.count(" ") + 1
    return bool(
        5 <= words <= 60
        and BEGIN_AND_END.fullmatch(sentence)
        and not CODE.search(sentence)
        and len(WORD.findall(sentence)) >= 0.85 * words
    )


# --- documents


@functools.cache
def _python_documents() -> tuple[Document, ...]:
    import pydoc_data.topics

    topics = pydoc_data.topics.topics
    documents = [Document(f"python.{topic}", tuple(sentences_of(topics[topic]))) for topic in sorted(topics)]
    for package in PACKAGES:
        root = Path(importlib.util.find_spec(package).submodule_search_locations[0])
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if not any(part in NOT_THEIRS or part.startswith(("test_", "array_api_")) for part in parts):
                sentences = tuple(_docstring_sentences(path.read_text("utf8")))
                documents.append(Document(".".join([package, *parts]), sentences))
    return tuple(documents)


def _docstring_sentences(source: str) -> Iterator[str]:
    """Of every string in triple quotes that begins a line: parsing the packages would take half a minute."""
    for text in re.findall(r'^[ \t]*(?:[\w.]+\([\w., ]*,\s*)?[rR]?"""(.*?)"""', source, re.MULTILINE | re.DOTALL):
        yield from sentences_of(text)


def _articles(path: Path) -> list[Document]:
    """WikiText's articles, with its word-level spacing and <unk> kept; a sentence is what ends with " ."."""
    documents = []
    for line in path.read_text("utf8").splitlines():
        if title := re.fullmatch(r" = ([^=].*[^=]) = ", line):
            documents.append((title[1], []))
        elif documents and not line.startswith(" = "):
            documents[-1][1].extend(part.strip() for part in re.split(r"(?<= \.)\s", line) if part.strip())
    return [Document(title, tuple(sentences)) for title, sentences in documents]


# --- splits without leaks


def _split(name: str, documents: Iterable[Document], card: DataCard, seed: int) -> TextDataset:
    """80 / 10 / 10 of the documents by seed."""
    documents = [document for document in _without_copies(documents) if len(document.sentences) >= 4]
    order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed)).tolist()
    tenth = len(documents) // 10
    test, validation, train = (
        [documents[i] for i in sorted(rows)] for rows in (order[:tenth], order[tenth : 2 * tenth], order[2 * tenth :])
    )
    return _without_repeats(name, train, validation, test, card)


def _words(sentence: str) -> list[str]:
    return re.findall(r"[a-z]+", sentence.lower())


def _without_copies(documents: Iterable[Document]) -> Iterator[Document]:
    """Every sentence once, where it comes first: the same words are the same sentence."""
    seen = set()
    for document in documents:
        kept = []
        for sentence in document.sentences:
            key = " ".join(_words(sentence))
            if key not in seen:
                seen.add(key)
                kept.append(sentence)
        yield Document(document.name, tuple(kept))


def _without_repeats(name: str, train, validation, test, card: DataCard) -> TextDataset:
    """Held-out documents without sentences half of whose runs of five words stand in a part before theirs."""
    known = _runs(train)
    validation = list(_new_to(known, validation))
    known |= _runs(validation)
    return TextDataset(name, tuple(train), tuple(validation), tuple(_new_to(known, test)), card)


def _fives(sentence: str) -> list[tuple[str, ...]]:
    words = _words(sentence)
    return [tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))]


def _runs(documents: Iterable[Document]) -> set[tuple[str, ...]]:
    return {five for document in documents for sentence in document.sentences for five in _fives(sentence)}


def _new_to(known: set[tuple[str, ...]], documents: Iterable[Document]) -> Iterator[Document]:
    for document in documents:
        kept = []
        for sentence in document.sentences:
            fives = _fives(sentence)
            if sum(five in known for five in fives) < 0.5 * len(fives):
                kept.append(sentence)
        if kept:
            yield Document(document.name, tuple(kept))
