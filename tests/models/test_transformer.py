"""The transformer against Hugging Face's BERT and GPT-2 with the same weights, and what each token may see."""

import pytest
import torch

from course_utils.models import TokenHead, Transformer, TransformerLayer, WordVectors

SIZES = {"dim": 24, "depth": 3, "heads": 4, "length": 12}


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Transformer(50, **{**SIZES, **options}).eval()


def tokens(n=4, length=12, low=5):
    return torch.randint(low, 50, (n, length), generator=torch.Generator().manual_seed(1))


def widened(network):
    """The network with weights that are not near zero, so that every part of it matters."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        for parameter in network.parameters():
            parameter.data = parameter.data + 0.3 * torch.randn_like(parameter)
    return network.double()


def copy_layer(theirs, ours, prefix=""):
    """The weights of one of Hugging Face's BERT layers in ours."""
    attention = theirs.attention.self
    for kind in ("weight", "bias"):
        parts = [getattr(getattr(attention, name), kind).data for name in ("query", "key", "value")]
        getattr(ours.qkv, kind).data = torch.cat(parts)
        for here, there in [
            (ours.out, theirs.attention.output.dense),
            (ours.norm1, theirs.attention.output.LayerNorm),
            (ours.mlp[0], theirs.intermediate.dense),
            (ours.mlp[2], theirs.output.dense),
            (ours.norm2, theirs.output.LayerNorm),
        ]:
            getattr(here, kind).data = getattr(there, kind).data


@pytest.fixture(scope="module")
def berts():
    """Hugging Face's BERT with random weights, and ours with the same: (theirs, encoder, head)."""
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install -e .[test]")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=12,
    )
    theirs = widened(transformers.BertForPreTraining(config)).eval()
    ours, head = build().double(), TokenHead(24, vocabulary=50).double()
    embeddings = theirs.bert.embeddings
    ours.words.weight.data = embeddings.word_embeddings.weight.data
    ours.positions.weight.data = embeddings.position_embeddings.weight.data
    ours.segments.weight.data = embeddings.token_type_embeddings.weight.data
    ours.norm.load_state_dict(embeddings.LayerNorm.state_dict())
    for here, there in zip(ours.layers, theirs.bert.encoder.layer, strict=True):
        copy_layer(there, here)
    predictions = theirs.cls.predictions
    head.transform[0].load_state_dict(predictions.transform.dense.state_dict())
    head.transform[2].load_state_dict(predictions.transform.LayerNorm.state_dict())
    head.bias.data = predictions.decoder.bias.data
    return theirs, ours, head


@pytest.mark.parametrize("padded", [False, True])
def test_the_encoder_is_hugging_faces_bert_given_its_weights(berts, padded):
    theirs, ours, head = berts
    ids = tokens()
    if padded:
        ids[0, 7:], ids[2, 3:] = 0, 0
    segments = (torch.arange(12) > 5).long().expand(4, -1)
    seen = ids != 0
    with torch.no_grad():
        expected = theirs.bert(ids, attention_mask=seen.long(), token_type_ids=segments)
        scores = theirs(ids, attention_mask=seen.long(), token_type_ids=segments).prediction_logits
        h = ours.tokens(ids, segments)
        torch.testing.assert_close(h[seen], expected.last_hidden_state[seen], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(head(h, ours.words.weight)[seen], scores[seen], rtol=1e-9, atol=1e-9)


def test_no_segments_are_the_first_segment():
    torch.testing.assert_close(build().tokens(tokens()), build().tokens(tokens(), torch.zeros_like(tokens())))


def test_the_causal_encoder_is_hugging_faces_gpt2_given_its_weights():
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install -e .[test]")
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=24, n_layer=3, n_head=4, n_positions=12, activation_function="gelu"
    )
    theirs = widened(transformers.GPT2Model(config)).eval()
    ours = build(causal=True, eps=1e-5).double()
    ours.words.weight.data, ours.positions.weight.data = theirs.wte.weight.data, theirs.wpe.weight.data
    ours.norm.load_state_dict(theirs.ln_f.state_dict())
    for here, there in zip(ours.layers, theirs.h, strict=True):
        here.norm1.load_state_dict(there.ln_1.state_dict())
        here.norm2.load_state_dict(there.ln_2.state_dict())
        for linear, conv in [
            (here.qkv, there.attn.c_attn),
            (here.out, there.attn.c_proj),
            (here.mlp[0], there.mlp.c_fc),
            (here.mlp[2], there.mlp.c_proj),
        ]:
            linear.weight.data, linear.bias.data = conv.weight.data.T, conv.bias.data
    with torch.no_grad():
        torch.testing.assert_close(ours.tokens(tokens()), theirs(tokens()).last_hidden_state, rtol=1e-9, atol=1e-9)


def dependence(network, ids):
    """Which input embedding each output depends on, by the gradient: (T, T) bool, row output, column input."""
    seen = []
    inputs = []
    network.words.register_forward_hook(lambda module, args, out: inputs.append(out.retain_grad() or out))
    for t in range(ids.shape[1]):
        inputs.clear()
        network.tokens(ids)[0, t].pow(2).sum().backward()
        seen.append(inputs[0].grad[0].abs().sum(1) > 0)
    return torch.stack(seen)


def test_a_causal_token_sees_itself_and_those_before_and_others_see_all():
    network = widened(build(causal=True))
    assert torch.equal(dependence(network, tokens(1)), torch.ones(12, 12).tril().bool())
    assert dependence(widened(build()), tokens(1)).all()


@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_nothing_for_the_tokens_that_are_there(causal):
    network = widened(build(causal=causal))
    ids = tokens(2, 8)
    padded = torch.cat([ids, torch.zeros(2, 4, dtype=torch.int64)], 1)
    with torch.no_grad():
        torch.testing.assert_close(network.tokens(padded)[:, :8], network.tokens(ids))
        torch.testing.assert_close(network(padded), network(ids))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_what_the_layer_uses_and_sums_to_one(causal):
    network = widened(build(causal=causal, depth=2))
    ids = tokens()
    ids[1, 9:] = 0
    for layer in (0, 1, -1):
        weights = network.attention(ids, layer=layer)
        torch.testing.assert_close(weights.sum(3), torch.ones_like(weights.sum(3)))
        assert (weights[1, :, :, 9:] == 0).all()
        assert causal == bool((weights.triu(1) == 0).all())
    x = torch.randn(2, 5, 24, dtype=torch.float64)
    layer = network.layers[0]
    h = layer.norm1(x) if causal else x
    values = layer.qkv(h)[:, :, 48:].unflatten(2, (4, 6)).transpose(1, 2)
    by_hand = layer.out((layer.attention(x, causal=causal) @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer._attend(h, causal, None), by_hand)


def test_the_vector_of_a_text_is_the_mean_of_its_tokens():
    ids = tokens()
    ids[0, 5:] = 0
    h = build().tokens(ids)
    torch.testing.assert_close(build()(ids)[0], h[0, :5].mean(0))
    torch.testing.assert_close(build()(ids)[1], h[1].mean(0))


def test_dropout_acts_in_training_only():
    network = build(dropout=0.5)
    assert torch.equal(network(tokens()), network(tokens()))
    network.train()
    assert not torch.equal(network(tokens()), network(tokens()))


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (torch.zeros(2, 13, dtype=torch.int64), r"\(N, at most 12\), got torch.int64 \(2, 13\)"),
        (torch.zeros(5, dtype=torch.int64), r"got torch.int64 \(5,\)"),
        (torch.zeros(2, 5), r"got torch.float32 \(2, 5\)"),
    ],
)
def test_what_are_no_tokens_is_refused(ids, words):
    with pytest.raises(ValueError, match=words):
        build()(ids)


def test_segments_must_fit_and_a_causal_transformer_has_none():
    with pytest.raises(ValueError, match=r"shaped like the tokens \(4, 12\), got \(4, 3\)"):
        build().tokens(tokens(), tokens()[:, :3])
    with pytest.raises(ValueError, match="none, as this transformer is causal"):
        build(causal=True).tokens(tokens(), torch.zeros_like(tokens()))
    with pytest.raises(ValueError, match="dim must divide by the number of heads, got 10 and 4"):
        TransformerLayer(10, heads=4)


@pytest.mark.parametrize("dim", [24, 96])
def test_weights_start_by_the_width_they_read(dim):
    network = build(dim=dim)
    for name, part in network.named_modules():
        if isinstance(part, torch.nn.Linear):
            assert part.weight.std().item() == pytest.approx(part.in_features**-0.5, rel=0.1), name
            assert (part.bias == 0).all(), name
    assert network.words.weight.std().item() == pytest.approx(0.5 * dim**-0.5, rel=0.1)


@pytest.mark.parametrize("dim", [16, 256])
def test_scores_start_with_a_variance_of_a_quarter_at_any_width(dim):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        h = torch.nn.functional.layer_norm(torch.randn(50, dim), (dim,))
        words, head = build(dim=dim).words.weight, TokenHead(dim, vocabulary=50)
    assert (h @ words.T).var().item() == pytest.approx(0.25, rel=0.25)
    assert head(h, words).var().item() == pytest.approx(0.25, rel=0.3)


def test_word_vectors_start_as_in_the_word2vec_program():
    vectors = WordVectors(500, dim=10)
    assert vectors(torch.arange(500)).abs().max() <= 0.05
    assert vectors(torch.arange(500)).std().item() == pytest.approx(0.1 / 12**0.5, rel=0.05)
