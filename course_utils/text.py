"""Text as numbers: a tokenizer, blocks of equal length, pairs of words and of sentences, and BERT's masking.

The special tokens come first in every vocabulary: number 0 is padding, and whatever is below `len(SPECIAL)` is special.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))
START = "▁"  # where a word begins


class Tokenizer:
    """Words cut into the pieces of a vocabulary that was learnt from text, lower-case, with numbers for the pieces.

    kind: "wordpiece", as BERT has it (Devlin et al. 2019, §3), where a piece inside a word begins with "##"; "bpe",
    pairs merged by frequency (Sennrich, Haddow and Birch 2016), where a piece that begins a word begins with "▁"; or
    "word", whole words by frequency, [UNK] for the rest. The `tokenizers` library does the work; its own WordPiece
    trainer gives another vocabulary at every call, so the pieces here are those of pair merging, the same every time.

    >>> tokenizer = Tokenizer(["the cat sat on the mat", "the cats sat"], size=40)
    >>> tokenizer.tokens(tokenizer.encode("the cat")), tokenizer.decode(tokenizer.encode("The cat."))
    (['the', 'cat'], 'the cat [UNK]')
    """

    def __init__(self, sentences: Iterable[str], *, size: int = 2000, kind: str = "wordpiece"):
        import tokenizers
        from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

        if kind not in ("wordpiece", "bpe", "word"):
            raise ValueError(f"kind must be one of wordpiece, bpe, word, got {kind!r}")
        if size <= len(SPECIAL):
            raise ValueError(f"size must be above the {len(SPECIAL)} special tokens, got {size}")
        options = {"vocab_size": size, "special_tokens": list(SPECIAL), "show_progress": False}
        words = pre_tokenizers.BertPreTokenizer()
        model = models.WordLevel(unk_token="[UNK]") if kind == "word" else models.BPE(unk_token="[UNK]")
        self.trained = tokenizers.Tokenizer(model)
        self.trained.normalizer = normalizers.BertNormalizer(lowercase=True)
        self.trained.pre_tokenizer = words
        if kind == "word":
            self.trained.train_from_iterator(sentences, trainers.WordLevelTrainer(**options))
            return
        marks = pre_tokenizers.Metaspace(replacement=START, prepend_scheme="always")
        self.trained.pre_tokenizer = pre_tokenizers.Sequence([words, marks])
        self.trained.decoder = decoders.Metaspace(replacement=START, prepend_scheme="always")
        self.trained.train_from_iterator(sentences, trainers.BpeTrainer(**options))
        if kind == "wordpiece":
            vocabulary = {piece: number for number, piece in enumerate(_as_wordpieces(self.trained, size))}
            self.trained.model = models.WordPiece(vocabulary, unk_token="[UNK]")
            self.trained.pre_tokenizer = words
            self.trained.decoder = decoders.WordPiece()

    def __len__(self) -> int:
        """How many tokens there are, the special ones among them."""
        return self.trained.get_vocab_size()

    def encode(self, sentence: str) -> list[int]:
        """The numbers of the pieces of a sentence, without [CLS] or [SEP]."""
        return self.trained.encode(sentence, add_special_tokens=False).ids

    def encode_all(self, sentences: Sequence[str]) -> list[list[int]]:
        """`encode` of every sentence, faster than one by one."""
        return [encoded.ids for encoded in self.trained.encode_batch(list(sentences), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text that numbers stand for, special tokens shown."""
        return self.trained.decode([int(i) for i in ids], skip_special_tokens=False)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The piece that each number stands for."""
        return [self.trained.id_to_token(int(i)) for i in ids]

    def id_of(self, token: str) -> int:
        """The number of a piece; ValueError where the vocabulary has none."""
        number = self.trained.token_to_id(token)
        if number is None:
            raise ValueError(f"the vocabulary has no token {token!r}")
        return number


def _as_wordpieces(merged, size: int) -> list[str]:
    """The pieces of a BPE vocabulary as WordPiece writes them: special ones, letters, then merges in their order."""
    pieces = [merged.id_to_token(i) for i in range(len(SPECIAL), merged.get_vocab_size())]
    letters = [piece for piece in pieces if len(piece) == 1 and piece != START]
    inside = [piece[1:] if piece.startswith(START) else f"##{piece}" for piece in pieces if len(piece) > 1]
    return list(dict.fromkeys([*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *inside]))[:size]


def blocks(documents: Iterable[Sequence[Sequence[int]]], *, length: int, start: int = CLS, end: int = SEP) -> Tensor:
    """Documents, each a list of encoded sentences, as rows of equal length: (N, length) int64.

    The sentences of a document follow each other, each closed by `end`. A row is `start` and the next length − 1
    tokens; a document's last row is left out where it would be short, so that no row crosses documents and none is
    padded.

    >>> blocks([[[7, 8], [9]], [[6]]], length=4).tolist()
    [[2, 7, 8, 3]]
    """
    if length < 2:
        raise ValueError(f"length must be at least 2, got {length}")
    rows = []
    for document in documents:
        flow = [token for sentence in document for token in (*sentence, end)]
        rows += [[start, *flow[i : i + length - 1]] for i in range(0, len(flow) - length + 2, length - 1)]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, length)


def mask_tokens(
    ids: Tensor, rng: torch.Generator, *, vocabulary: int, ratio: float = 0.15, parts: Sequence[float] = (0.8, 0.1, 0.1)
) -> tuple[Tensor, Tensor]:
    """BERT's corruption (Devlin et al. 2019, §3.1 and appendix A.1): (corrupted ids, chosen), both shaped like ids.

    Every token is chosen with probability `ratio`, special ones never. Of the chosen, parts[0] become [MASK], parts[1]
    a random ordinary token, and the rest stay as they are; what was there is to be predicted at all of them.

    The authors' code chooses a fixed number of positions a sequence and draws random tokens from the whole vocabulary;
    here each position is chosen on its own, as in Hugging Face's collator, and special tokens are not drawn.

    >>> ids = torch.arange(5, 25).view(2, 10)
    >>> corrupted, chosen = mask_tokens(ids, torch.Generator().manual_seed(0), vocabulary=25, parts=(1, 0, 0))
    >>> bool((corrupted[chosen] == MASK).all()), torch.equal(corrupted[~chosen], ids[~chosen])
    (True, True)
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1, got {ratio}")
    if len(parts) != 3 or min(parts) < 0 or abs(sum(parts) - 1) > 1e-6:
        raise ValueError(f"parts must be three shares that sum to 1 (masked, random, kept), got {tuple(parts)}")
    if vocabulary <= len(SPECIAL):
        raise ValueError(f"vocabulary must be above the {len(SPECIAL)} special tokens, got {vocabulary}")
    chosen = (torch.rand(ids.shape, generator=rng, device=ids.device) < ratio) & (ids >= len(SPECIAL))
    kind = torch.rand(ids.shape, generator=rng, device=ids.device)
    other = torch.randint(len(SPECIAL), vocabulary, ids.shape, generator=rng, device=ids.device)
    corrupted = torch.where(chosen & (kind < parts[0]), MASK, ids)
    corrupted = torch.where(chosen & (kind >= parts[0]) & (kind < parts[0] + parts[1]), other, corrupted)
    return corrupted, chosen


def sentence_pairs(
    documents: Sequence[Sequence[Sequence[int]]], rng: torch.Generator, *, length: int, topic: str = "any"
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs for next-sentence prediction (Devlin et al. 2019, §3.1): (ids, segments, is_next).

    For every sentence A that another one follows, B is that one half of the time (is_next 1) and else a random
    sentence (0): of another document for topic="any", as in the paper, or of the same document and not A or the next
    one for topic="same". ids (N, length) int64 is [CLS] A [SEP] B [SEP] and padding; segments (N, length) int64 is 0
    for A and its special tokens, 1 for B and its [SEP]. The longer of the two is cut until both fit.

    >>> documents = [[[5], [6]], [[7], [8]]]
    >>> ids, segments, is_next = sentence_pairs(documents, torch.Generator().manual_seed(0), length=6)
    >>> ids[0, :3].tolist(), segments[0].tolist()
    ([2, 5, 3], [0, 0, 0, 1, 1, 0])
    """
    if topic not in ("any", "same"):
        raise ValueError(f"topic must be 'any' or 'same', got {topic!r}")
    if length < 5:
        raise ValueError(f"length must be at least 5, for two tokens and three special ones, got {length}")
    if topic == "any" and len(documents) < 2:
        raise ValueError("a random sentence comes from another document, so at least 2 documents are needed")

    def below(n: int) -> int:
        return int(torch.randint(n, (), generator=rng))

    ids, segments, labels = [], [], []
    for number, document in enumerate(documents):
        for place in range(len(document) - 1):
            is_next = below(2)
            if is_next:
                b = document[place + 1]
            elif topic == "any":
                other = below(len(documents) - 1)
                other = documents[other + (other >= number)]
                b = other[below(len(other))]
            elif len(document) > 2:
                elsewhere = below(len(document) - 2)
                b = document[elsewhere + 2 * (elsewhere >= place)]
            else:
                continue
            a, b = list(document[place]), list(b)
            while len(a) + len(b) > length - 3:
                (a if len(a) > len(b) else b).pop()
            padding = [0] * (length - 3 - len(a) - len(b))
            ids.append([CLS, *a, SEP, *b, SEP, *padding])
            segments.append([0] * (len(a) + 2) + [1] * (len(b) + 1) + padding)
            labels.append(is_next)
    return tuple(torch.tensor(values, dtype=torch.int64) for values in (ids, segments, labels))


def subsample(sentences: Iterable[Sequence[int]], counts: Tensor, rng: torch.Generator, *, threshold: float) -> list:
    """Sentences without part of their frequent words: each word w goes with probability 1 − √(t / f(w)).

    Mikolov et al. 2013, equation 5; f(w) is the word's share of all words, from counts (V,), and t the threshold.

    >>> counts = torch.tensor([90, 10])
    >>> kept = subsample([[0, 1] * 500], counts, torch.Generator().manual_seed(0), threshold=0.1)[0]
    >>> kept.count(1), 130 < kept.count(0) < 200
    (500, True)
    """
    if not threshold > 0:
        raise ValueError(f"threshold must be positive, got {threshold}")
    keep = (threshold / (counts / counts.sum())).sqrt()
    kept = []
    for sentence in sentences:
        words = torch.as_tensor(sentence, dtype=torch.int64)
        kept.append(words[torch.rand(len(words), generator=rng) < keep[words]].tolist())
    return kept


def skip_grams(sentences: Iterable[Sequence[int]], rng: torch.Generator, *, window: int = 5) -> tuple[Tensor, Tensor]:
    """Pairs (word, a word near it) of the skip-gram model: two tensors (N,) int64, in no order to rely on.

    For every word a reach R from 1 to `window` is drawn, and all words up to R places before and after it in its
    sentence are its contexts (Mikolov, Chen, Corrado and Dean 2013, §3.2): nearer words count more.

    >>> centre, context = skip_grams([[5, 6, 7]], torch.Generator().manual_seed(0), window=1)
    >>> sorted(zip(centre.tolist(), context.tolist()))
    [(5, 6), (6, 5), (6, 7), (7, 6)]
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    sentences = [sentence for sentence in sentences if len(sentence)]
    words = torch.tensor([word for sentence in sentences for word in sentence], dtype=torch.int64)
    lengths = torch.tensor([len(sentence) for sentence in sentences])
    owner = torch.repeat_interleave(torch.arange(len(sentences)), lengths)
    reach = torch.randint(1, window + 1, words.shape, generator=rng)
    centres, contexts = [], []
    for step in range(1, min(window, max(lengths.tolist(), default=0)) + 1):
        together = owner[step:] == owner[:-step]
        left, right = words[:-step], words[step:]
        forward, backward = together & (reach[:-step] >= step), together & (reach[step:] >= step)
        centres += [left[forward], right[backward]]
        contexts += [right[forward], left[backward]]
    nothing = torch.empty(0, dtype=torch.int64)
    return torch.cat([nothing, *centres]), torch.cat([nothing, *contexts])
