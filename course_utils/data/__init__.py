"""The data room: `load(name)` gives train, validation and test of any set in the catalogue, `load_text` of texts.

>>> from course_utils.data import load
>>> load("digits").train.x.shape
torch.Size([1079, 1, 8, 8])
"""

from course_utils.data.catalogue import CATALOGUE, describe, load, load_text, locate
from course_utils.data.store import DataError
from course_utils.data.text import Document, TextDataset
from course_utils.data.types import DataCard, Dataset, Split, balanced_subset

__all__ = [
    "CATALOGUE",
    "DataCard",
    "DataError",
    "Dataset",
    "Document",
    "Split",
    "TextDataset",
    "balanced_subset",
    "describe",
    "load",
    "load_text",
    "locate",
]
