"""BERT's two tasks composed by hand from their parts; what is predicted, and what must not be seen."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F

from course_utils.losses import masked_cross_entropy
from course_utils.methods import BERT, MaskedLanguageModel
from course_utils.models import Transformer
from course_utils.text import MASK, mask_tokens, sentence_pairs
from course_utils.train import fit

IDS = torch.randint(5, 40, (16, 12), generator=torch.Generator().manual_seed(1))


def build(method=MaskedLanguageModel, *, causal=False, vocabulary=40, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Transformer(vocabulary, dim=16, depth=1, heads=2, length=12, causal=causal)
        return method(encoder, **options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("ratio", [0.15, 0.5])
def test_the_loss_is_that_of_the_chosen_positions_of_corrupted_text(ratio):
    method = build(ratio=ratio)
    loss, logs = method.training_loss(IDS, seeded())
    corrupted, chosen = mask_tokens(IDS, seeded(), vocabulary=40, ratio=ratio)
    scores = method.head(method.encoder.tokens(corrupted), method.encoder.words.weight)
    torch.testing.assert_close(loss, masked_cross_entropy(scores, IDS, mask=chosen))
    assert logs["accuracy"] == pytest.approx((scores.argmax(2) == IDS)[chosen].float().mean().item())
    torch.testing.assert_close(method.predict(corrupted, chosen), scores[chosen].detach())


def test_a_model_starts_at_the_logarithm_of_its_vocabulary_and_every_parameter_learns():
    method = build()
    loss, _ = method.training_loss(IDS, seeded())
    assert loss.item() == pytest.approx(math.log(40) + 1 / 8, abs=0.15)
    loss.backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad.isfinite().all(), name
        if "segments" not in name and not name.endswith("qkv.bias"):
            assert parameter.grad.abs().sum() > 0, name


def test_word_embeddings_are_shared_with_the_scores():
    method = build(parts=(1, 0, 0))
    method.training_loss(IDS, seeded())[0].backward()
    absent = 39 if (IDS != 39).all() else int(torch.tensor([i for i in range(40) if not (i == IDS).any()])[0])
    assert method.encoder.words.weight.grad[absent].abs().sum() > 0  # never read, but scored


def test_it_learns_a_text_in_which_each_token_follows_from_the_others():
    ids = 5 + torch.randint(0, 20, (256, 1), generator=seeded()).expand(-1, 12)  # one word, again and again
    method = build(vocabulary=25)
    history = fit(method, ids, steps=200, batch_size=64, lr=1e-2, progress=False)
    assert sum(row["accuracy"] for row in history.rows[-10:]) / 10 > 0.8
    before = copy.deepcopy(method.state_dict())
    method.predict(ids, torch.ones_like(ids, dtype=torch.bool))
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


def test_a_batch_in_which_nothing_was_chosen_has_no_loss_and_no_error():
    method = build()
    loss, logs = method.training_loss(torch.full((2, 5), MASK), seeded())
    loss.backward()
    assert (loss.item(), logs) == (0, {"accuracy": 0.0})


def test_it_is_refused_where_it_would_look_back_only_or_corrupt_nonsense():
    with pytest.raises(ValueError, match="its encoder must have causal=False"):
        build(causal=True)
    with pytest.raises(ValueError, match="ratio must be above 0"):
        build(ratio=0)
    with pytest.raises(ValueError, match="three shares"):
        build(parts=(1, 1, 1))


@pytest.mark.parametrize("method", [MaskedLanguageModel, BERT])
def test_copies_are_equal_and_the_mode_is_left_as_it_was(method):
    model = build(method)
    other = pickle.loads(pickle.dumps(model))
    assert torch.equal(model.encode(IDS), other.encode(IDS))
    assert model.encode(IDS).shape == (16, 16)
    model.predict(IDS, IDS > 20)
    assert model.training


# --- next sentence


def pairs(n=40):
    """Documents of one letter each: whether B is of A's document shows in its tokens."""
    documents = [[[5 + d] * 3 for _ in range(6)] for d in range(n // 2)]
    return sentence_pairs(documents, seeded(1), length=12)


def test_berts_loss_is_the_sum_of_both_tasks():
    method = build(BERT)
    ids, segments, is_next = pairs()
    loss, logs = method.training_loss((ids, segments, is_next), seeded())
    corrupted, chosen = mask_tokens(ids, seeded(), vocabulary=40)
    h = method.encoder.tokens(corrupted, segments)
    cloze = masked_cross_entropy(method.head(h, method.encoder.words.weight), ids, mask=chosen)
    scores = method.next(torch.tanh(method.pooler[0](h[:, 0])))
    torch.testing.assert_close(loss, cloze + F.cross_entropy(scores, is_next))
    assert logs["next_loss"] == pytest.approx(F.cross_entropy(scores, is_next).item())
    assert logs["next_loss"] == pytest.approx(math.log(2), abs=0.3)
    assert logs["next_accuracy"] == pytest.approx((scores.argmax(1) == is_next).float().mean().item())


def test_the_next_sentence_is_told_by_its_topic_where_that_gives_it_away():
    ids, segments, is_next = pairs()
    method = build(BERT)
    fit(method, (ids, segments, is_next), steps=250, batch_size=64, lr=1e-2, progress=False)
    right = (method.predict_next(ids, segments).argmax(1) == is_next).float().mean()
    assert right >= 0.85


def test_berts_pooler_and_classifier_are_hugging_faces():
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install -e .[test]")
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    theirs = transformers.BertForPreTraining(config).eval()
    method = build(BERT)
    method.pooler[0].load_state_dict(theirs.bert.pooler.dense.state_dict())
    method.next.load_state_dict(theirs.cls.seq_relationship.state_dict())
    h = torch.randn(3, 5, 16, generator=seeded())
    expected = theirs.cls.seq_relationship(theirs.bert.pooler(h))
    torch.testing.assert_close(method.next(method.pooler(h[:, 0])), expected)
