"""Tokens, blocks, pairs and masks: each against its definition, and masking against Hugging Face's collator."""

import math

import pytest
import torch

from course_utils.text import (
    CLS,
    MASK,
    PAD,
    SEP,
    SPECIAL,
    UNK,
    Tokenizer,
    blocks,
    mask_tokens,
    sentence_pairs,
    skip_grams,
    subsample,
)

TEXTS = ["The cat sat on the mat.", "The cats are sitting on mats.", "A dog sat on the cat's mat, too."]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "word"])
def test_special_tokens_come_first_and_the_same_texts_give_the_same_tokenizer(kind):
    tokenizer, again = (Tokenizer(TEXTS, size=60, kind=kind) for _ in range(2))
    assert tokenizer.tokens(range(5)) == list(SPECIAL)
    assert [tokenizer.id_of(token) for token in SPECIAL] == [PAD, UNK, CLS, SEP, MASK]
    assert len(tokenizer) <= 60
    assert tokenizer.trained.get_vocab() == again.trained.get_vocab()
    assert tokenizer.encode_all(TEXTS) == [again.encode(text) for text in TEXTS]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_pieces_put_together_give_the_text_in_lower_case(kind):
    tokenizer = Tokenizer(TEXTS, size=60, kind=kind)
    text = "the cats sat on the mat"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(text.upper()) == tokenizer.encode(text)


def test_a_small_vocabulary_cuts_words_into_pieces_and_words_of_a_word_vocabulary_are_whole():
    assert len(Tokenizer(TEXTS, size=45).encode("sitting")) > 1
    words = Tokenizer(TEXTS, size=60, kind="word")
    assert words.tokens(words.encode("the elephant sat")) == ["the", "[UNK]", "sat"]
    with pytest.raises(ValueError, match="no token 'elephant'"):
        words.id_of("elephant")


def test_a_tokenizer_refuses_an_unknown_kind_and_no_room():
    with pytest.raises(ValueError, match="kind must be one of wordpiece, bpe, word, got 'char'"):
        Tokenizer(TEXTS, kind="char")
    with pytest.raises(ValueError, match="above the 5 special tokens, got 5"):
        Tokenizer(TEXTS, size=5)


def test_blocks_are_full_begin_with_cls_and_never_cross_documents():
    documents = [[[5, 6, 7], [8]], [[9]], [[10, 11], [12, 13]]]
    rows = blocks(documents, length=4)
    assert rows.tolist() == [[CLS, 5, 6, 7], [CLS, SEP, 8, SEP], [CLS, 10, 11, SEP], [CLS, 12, 13, SEP]]
    assert blocks([[[5]]], length=8).shape == (0, 8)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        blocks(documents, length=1)


# --- masking


def within(count, n, p, sigmas=5):
    """Whether a count of n trials is as likely as the binomial has it, to five standard deviations."""
    return abs(count - n * p) <= sigmas * math.sqrt(n * p * (1 - p))


IDS = torch.randint(0, 500, (400, 64), generator=seeded(1))


@pytest.mark.parametrize(("ratio", "parts"), [(0.15, (0.8, 0.1, 0.1)), (0.4, (0.5, 0.3, 0.2)), (0.15, (1, 0, 0))])
def test_masking_keeps_its_shares_to_the_binomial(ratio, parts):
    corrupted, chosen = mask_tokens(IDS, seeded(), vocabulary=500, ratio=ratio, parts=parts)
    ordinary = int((len(SPECIAL) <= IDS).sum())
    n = int(chosen.sum())
    assert within(n, ordinary, ratio)
    masked, same = (corrupted == MASK) & chosen, (corrupted == IDS) & chosen
    assert within(int(masked.sum()), n, parts[0])
    by_chance = parts[1] / (500 - len(SPECIAL))  # a random token may be the one that was there
    assert within(int(same.sum()), n, parts[2] + by_chance)


def test_special_tokens_are_never_chosen_never_drawn_and_the_rest_is_left_alone():
    before = IDS.clone()
    corrupted, chosen = mask_tokens(IDS, seeded(), vocabulary=500, ratio=1.0, parts=(0, 1, 0))
    assert torch.equal(IDS, before)
    assert torch.equal(chosen, len(SPECIAL) <= IDS)
    assert torch.equal(corrupted[~chosen], IDS[~chosen])
    drawn = corrupted[chosen]
    assert (drawn.min(), drawn.max()) == (len(SPECIAL), 499)
    counts = drawn.bincount(minlength=500)[len(SPECIAL) :]
    expected = len(drawn) / len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < len(counts) + 5 * math.sqrt(2 * len(counts))  # chi-squared


def test_masking_follows_from_its_generator():
    one, two = (mask_tokens(IDS, seeded(3), vocabulary=500) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert not torch.equal(one[1], mask_tokens(IDS, seeded(4), vocabulary=500)[1])


def test_masking_agrees_with_hugging_faces_collator():
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install -e .[test]")
    tokenizer = transformers.BertTokenizer(
        vocab={token: i for i, token in enumerate([*SPECIAL, *map(str, range(495))])}
    )
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, seed=0)
    theirs = collator([{"input_ids": row} for row in IDS.tolist()])
    ordinary = int((len(SPECIAL) <= IDS).sum())
    chosen = theirs["labels"] != -100
    ours_corrupted, ours_chosen = mask_tokens(IDS, seeded(), vocabulary=500)
    shares = []
    for corrupted, picked in [(theirs["input_ids"], chosen), (ours_corrupted, ours_chosen)]:
        n = int(picked.sum())
        assert not (picked & (len(SPECIAL) > IDS) & (IDS != UNK)).any()
        assert within(n, ordinary, 0.15)
        shares.append([n / ordinary, *((x & picked).sum().item() / n for x in (corrupted == MASK, corrupted == IDS))])
    difference = torch.tensor(shares[0]) - torch.tensor(shares[1])
    n = 0.15 * ordinary
    for gap, p, trials in zip(difference, [0.15, 0.8, 0.1], [ordinary, n, n], strict=True):
        assert abs(gap) < 5 * math.sqrt(2 * p * (1 - p) / trials)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ratio": 0.0}, "ratio must be above 0 and at most 1, got 0.0"),
        ({"ratio": 1.5}, "got 1.5"),
        ({"parts": (0.8, 0.1)}, r"three shares that sum to 1 .*got \(0.8, 0.1\)"),
        ({"parts": (0.8, 0.3, -0.1)}, "three shares"),
        ({"parts": (0.8, 0.1, 0.2)}, "three shares"),
        ({"vocabulary": 5}, "vocabulary must be above the 5 special tokens, got 5"),
    ],
)
def test_masking_refuses_what_is_no_share(options, words):
    with pytest.raises(ValueError, match=words):
        mask_tokens(IDS, seeded(), **{"vocabulary": 500, **options})


# --- pairs of sentences

DOCUMENTS = [[[100 * d + s] * (1 + s) for s in range(1, 7)] for d in range(1, 31)]  # sentence s of document d


@pytest.mark.parametrize("topic", ["any", "same"])
def test_half_of_the_pairs_follow_each_other_and_the_rest_do_not(topic):
    ids, segments, is_next = (
        torch.cat(part)
        for part in zip(
            *(sentence_pairs(DOCUMENTS, seeded(seed), length=20, topic=topic) for seed in range(10)), strict=True
        )
    )
    assert len(ids) == 10 * 30 * 5
    assert within(int(is_next.sum()), len(ids), 0.5)
    for row, segment, follows in zip(ids.tolist(), segments.tolist(), is_next.tolist(), strict=True):
        assert row[0] == CLS
        first = row.index(SEP)
        second = row.index(SEP, first + 1)
        assert segment == [0] * (first + 1) + [1] * (second - first) + [0] * (19 - second)
        assert row[second + 1 :] == [PAD] * (19 - second)
        a, b = row[1], row[first + 1]
        assert set(row[1:first]) == {a}
        assert (b == a + 1) if follows else b != a and (b != a + 1) and ((a // 100 == b // 100) == (topic == "same"))


def test_pairs_that_are_too_long_lose_the_end_of_the_longer_one():
    ids, segments, _ = sentence_pairs([[list(range(10, 30)), [7, 8]], [[5], [6]]], seeded(1), length=10, topic="any")
    row = ids[0].tolist()
    assert row[0] == CLS
    assert row[1 : row.index(SEP)] == list(range(10, 10 + row.index(SEP) - 1))
    assert (row != PAD) or segments[0].sum()
    assert PAD not in row


@pytest.mark.parametrize(
    ("documents", "options", "words"),
    [
        (DOCUMENTS, {"length": 20, "topic": "other"}, "topic must be 'any' or 'same', got 'other'"),
        (DOCUMENTS, {"length": 4}, "length must be at least 5"),
        (DOCUMENTS[:1], {"length": 20}, "at least 2 documents"),
    ],
)
def test_pairs_refuse_what_cannot_be(documents, options, words):
    with pytest.raises(ValueError, match=words):
        sentence_pairs(documents, seeded(), **options)


# --- skip-grams


@pytest.mark.parametrize("window", [1, 2, 4])
def test_skip_grams_are_the_words_within_reach_in_one_sentence(window):
    """Over many draws a pair at distance d occurs with the chance that R ≥ d: (window − d + 1) / window."""
    draws = 400
    found = {}
    for seed in range(draws):
        centre, context = skip_grams([[10, 11, 12, 13], [20, 21]], seeded(seed), window=window)
        for pair in zip(centre.tolist(), context.tolist(), strict=True):
            found[pair] = found.get(pair, 0) + 1
    for a in (10, 11, 12, 13, 20, 21):
        for b in (10, 11, 12, 13, 20, 21):
            distance = abs(a - b)
            p = 0 if distance == 0 or distance > window else (window - distance + 1) / window
            assert within(found.get((a, b), 0), draws, p) if 0 < p < 1 else found.get((a, b), 0) == draws * p


def test_no_sentences_have_no_skip_grams():
    assert [part.tolist() for part in skip_grams([[], [5]], seeded(), window=2)] == [[], []]
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        skip_grams([[1, 2]], seeded(), window=0)


def test_subsampling_keeps_each_word_with_the_papers_probability():
    counts = torch.tensor([8000, 1500, 499, 1])
    sentence = [0] * 8000 + [1] * 1500 + [2] * 499 + [3]
    kept = torch.tensor(subsample([sentence], counts, seeded(), threshold=0.01)[0]).bincount(minlength=4)
    for word, n in enumerate(counts.tolist()):
        p = min(1.0, math.sqrt(0.01 / (n / 10_000)))
        assert kept[word] == n if p == 1 else within(int(kept[word]), n, p)
    with pytest.raises(ValueError, match="threshold must be positive, got 0"):
        subsample([sentence], counts, seeded(), threshold=0)
