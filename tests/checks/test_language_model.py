"""Exercise 4: right ways pass, known mistakes are called by their names, and quality is measured as stated."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_utils.calling import call
from course_utils.checks import language_model as lm
from course_utils.checks.core import diagnose

TASKS = {task.name: task for task in lm.TASKS}


def says(task, function, seed):
    cases = list(task.cases(np.random.default_rng(seed)))
    return diagnose(task, cases, [call(function, case.given, task.how) for case in cases])


# --- right ways


def mask_loop(tokens, n_words, rate, seed):
    rng = np.random.default_rng(seed)
    corrupted, targets = tokens.clone(), torch.full_like(tokens, -100)
    for i, j in (tokens >= 5).nonzero().tolist():
        if rng.random() >= rate:
            continue
        targets[i, j] = tokens[i, j]
        die = rng.random()
        if die < 0.8:
            corrupted[i, j] = 4
        elif die < 0.9:
            corrupted[i, j] = int(rng.integers(5, n_words))
    return corrupted, targets


def mask_by_index(tokens, n_words, rate, seed):
    torch.manual_seed(seed)
    rows, columns = ((torch.rand(tokens.shape) < rate) & (tokens > 4)).nonzero().T
    targets, corrupted = torch.full_like(tokens, -100), tokens.clone()
    targets[rows, columns] = tokens[rows, columns]
    kind = torch.multinomial(torch.tensor([0.8, 0.1, 0.1]), max(len(rows), 1), replacement=True)[: len(rows)]
    corrupted[rows[kind == 0], columns[kind == 0]] = 4
    random = kind == 1
    corrupted[rows[random], columns[random]] = torch.randint(5, n_words, (int(random.sum()),))
    return corrupted, targets


def mask_by_one_draw(tokens, n_words, rate, seed):
    rng = torch.Generator().manual_seed(seed)
    u = torch.rand(tokens.shape, generator=rng).masked_fill(tokens < 5, 2.0)
    corrupted = tokens.masked_fill(u < 0.8 * rate, 4)
    random = (u >= 0.8 * rate) & (u < 0.9 * rate)
    corrupted[random] = torch.randint(5, n_words, (int(random.sum()),), generator=rng)
    return corrupted, tokens.masked_fill(u >= rate, -100)


def loss_of_log_probabilities(scores, targets):
    return F.nll_loss(scores.log_softmax(2).transpose(1, 2), targets)


def loss_loop(scores, targets):
    terms = [
        torch.logsumexp(scores[i, j], 0) - scores[i, j, targets[i, j]] for i, j in (targets != -100).nonzero().tolist()
    ]
    return torch.stack(terms).mean()


def loss_one_hot(scores, targets):
    chosen = targets != -100
    hot = F.one_hot(targets.clamp(min=0), scores.shape[2]) * chosen[:, :, None]
    return -torch.einsum("ntv,ntv->", hot.to(scores.dtype), scores.log_softmax(-1)) / chosen.sum()


def attention_loop(q, k, v, seen):
    n, heads, length, width = q.shape
    rows = []
    for i in range(n):
        for h in range(heads):
            keys, values = k[i, h][seen[i]], v[i, h][seen[i]]
            rows += [(keys @ q[i, h, t] / math.sqrt(width)).softmax(0) @ values for t in range(length)]
    return torch.stack(rows).view(n, heads, length, -1)


def attention_einsum(q, k, v, seen):
    weights = torch.einsum("nhqd,nhkd->nhqk", q, k).div(q.shape[-1] ** 0.5).exp() * seen[:, None, None]
    return torch.einsum("nhqk,nhkd->nhqd", weights / weights.sum(-1, keepdim=True), v)


def attention_torch(q, k, v, seen):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None, :])


def block_loop(x, seen, Wq, Wk, Wv, Wo, heads):
    width = x.shape[2] // heads
    out = []
    for h in range(heads):
        rows = slice(h * width, (h + 1) * width)
        q, k, v = (x @ W[rows].T for W in (Wq, Wk, Wv))
        out.append(attention_torch(q[:, None], k[:, None], v[:, None], seen)[:, 0])
    y = x + torch.cat(out, 2) @ Wo.T
    return (y - y.mean(2, keepdim=True)) / (y.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()


def block_einsum(x, seen, Wq, Wk, Wv, Wo, heads):
    q, k, v = (torch.einsum("ntd,hwd->nhtw", x, W.view(heads, -1, x.shape[2])) for W in (Wq, Wk, Wv))
    mixed = torch.einsum("nhtw,dhw->ntd", attention_einsum(q, k, v, seen), Wo.view(x.shape[2], heads, -1))
    return F.layer_norm(x + mixed, x.shape[2:])


def block_torch(x, seen, Wq, Wk, Wv, Wo, heads):
    layer = torch.nn.MultiheadAttention(x.shape[2], heads, bias=False, batch_first=True)
    weights = {"in_proj_weight": torch.cat([Wq, Wk, Wv]), "out_proj.weight": Wo}
    options = {"key_padding_mask": ~seen, "need_weights": False}
    return F.layer_norm(x + torch.func.functional_call(layer, weights, (x, x, x), options)[0], x.shape[2:])


def positions_loop(length, dim):
    table = torch.zeros(length, dim)
    for t in range(length):
        for i in range(0, dim, 2):
            table[t, i] = math.sin(t / 10000 ** (i / dim))
            table[t, i + 1] = math.cos(t / 10000 ** (i / dim))
    return table


def positions_where(length, dim):
    column = torch.arange(dim)
    angle = torch.arange(length)[:, None] * torch.exp(-math.log(10000) * (column - column % 2) / dim)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos())


def positions_slices(length, dim):
    table = torch.empty(length, dim)
    angle = torch.outer(torch.arange(length).float(), 10000.0 ** -(torch.arange(0, dim, 2) / dim))
    table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()
    return table


def pool_loop(h, tokens):
    return torch.stack([row[ids != 0].mean(0) for row, ids in zip(h, tokens, strict=True)])


def pool_einsum(h, tokens):
    weights = (tokens != 0).float()
    return torch.einsum("nt,ntd->nd", weights / weights.sum(1, keepdim=True), h)


def pool_nanmean(h, tokens):
    return h.masked_fill((tokens == 0)[:, :, None], math.nan).nanmean(1)


def pairs_by_rejection(document, seed):
    rng = torch.Generator().manual_seed(seed)
    first = (document[:-1] == document[1:]).nonzero()[:, 0]
    is_next = torch.randint(2, first.shape, generator=rng)
    second = torch.randint(len(document), first.shape, generator=rng)
    while (own := document[second] == document[first]).any():
        second[own] = torch.randint(len(document), (int(own.sum()),), generator=rng)
    return first, torch.where(is_next == 1, first + 1, second), is_next


def pairs_loop(document, seed):
    rng = np.random.default_rng(seed)
    document = document.tolist()
    n, rows = len(document), []
    for i in range(n - 1):
        if document[i + 1] != document[i]:
            continue
        if rng.random() < 0.5:
            rows.append((i, i + 1, 1))
            continue
        j = i
        while document[j] == document[i]:
            j = int(rng.integers(n))
        rows.append((i, j, 0))
    return tuple(torch.tensor(column) for column in zip(*rows, strict=True))


def pairs_vectorised(document, seed):
    rng = torch.Generator().manual_seed(seed)
    first = (document[1:] == document[:-1]).nonzero()[:, 0]
    noise = torch.rand(len(first), len(document), generator=rng)
    noise[document[first][:, None] == document] = -1
    is_next = torch.rand(len(first), generator=rng) > 0.5
    return first, torch.where(is_next, first + 1, noise.argmax(1)), is_next


def embed_by_counting(corpus, texts, n_words, steps, seed):
    """No network: the leading directions of the words' counts, which is a right result of another kind."""
    counts = [torch.zeros(len(ids), n_words).scatter_add_(1, ids, torch.ones(ids.shape)) for ids in (corpus, texts)]
    rarity = torch.log(len(corpus) / (1 + (counts[0] > 0).sum(0)))
    rarity[:5] = 0
    return counts[1] * rarity @ torch.linalg.svd(counts[0] * rarity, full_matrices=False).Vh[:16].T


RIGHT = {
    "mask_tokens": (mask_loop, mask_by_index, mask_by_one_draw, lm.mask_tokens),
    "masked_loss": (loss_loop, loss_one_hot, loss_of_log_probabilities, lm.masked_loss),
    "attention": (attention_loop, attention_einsum, attention_torch, lm.attention),
    "attention_block": (block_loop, block_einsum, block_torch, lm.attention_block),
    "positions": (positions_loop, positions_where, positions_slices, lm.positions),
    "pool": (pool_loop, pool_einsum, pool_nanmean, lm.pool),
    "next_sentence_pairs": (pairs_loop, pairs_vectorised, pairs_by_rejection, lm.next_sentence_pairs),
    "embed": (embed_by_counting, lm.embed),
}


@pytest.mark.parametrize("name", ["mask_tokens", "next_sentence_pairs"])
def test_the_bounds_of_random_results_hold_for_a_right_way_over_many_seeds(name):
    task = TASKS[name]
    for seed in range(100, 130):
        assert says(task, task.solution, seed) is None, seed


def test_the_small_language_is_new_with_each_seed_and_the_same_with_the_same():
    one, same, other = (lm.small_language(np.random.default_rng(seed), 300) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.tokens, same.tokens)
    assert one.tokens.max() < one.n_words
    assert (one.tokens[:, 0] == 2).all()
    assert ((one.tokens == 3).sum(1) == 1).all()
    commonest = [set(np.argsort(np.bincount(a.tokens.ravel()))[-9:].tolist()) for a in (one, other)]
    assert commonest[0] != commonest[1]  # another number for each word


def quality(function, seed):
    task = TASKS["embed"]
    cases = task.graded_cases(seed)
    return task.grade(cases, [call(function, case.given, task.how) for case in cases])


def untrained(corpus, texts, n_words, steps, seed):
    return lm.embed(corpus, texts, n_words, 0, seed)


@pytest.mark.parametrize("seed", [7, 8])
def test_an_untrained_encoder_and_noise_earn_next_to_nothing(seed):
    def noise(corpus, texts, n_words, steps, seed):
        return torch.randn(len(texts), 64)

    def constant(corpus, texts, n_words, steps, seed):
        return torch.ones(len(texts), 8)

    assert quality(untrained, seed).part <= 0.1
    assert quality(noise, seed).part == 0
    assert quality(constant, seed).part == 0


def test_the_text_names_the_levels_of_the_quality_points():
    text = (Path(__file__).parents[2] / "exercises/04_language_model.ipynb").read_text("utf8")
    assert f"{100 * lm.RANDOM_LEVEL:.0f} right" in text
    assert f"in a hundred up to {100 * lm.GOOD_LEVEL:.0f}," in text


@pytest.mark.slow
def test_the_solution_earns_the_quality_points_on_a_seed_that_set_no_level():
    score = quality(lm.embed, 7)
    assert score.part >= 0.8
    assert "names the topic of" in score.remark
