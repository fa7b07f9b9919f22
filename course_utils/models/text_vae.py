"""Variational autoencoder of sentences: a recurrent network reads one into a code, another writes it from the code.

Bowman, Vilnis, Vinyals, Dai, Jozefowicz and Bengio, "Generating Sentences from a Continuous Space", 2016.
"""

import torch
from torch import Tensor, nn

from course_utils.models.priors import StandardNormal
from course_utils.models.vae import GaussianEncoder
from course_utils.text import CLS, PAD, SEP


class SentenceReader(nn.Module):
    """A GRU over word embeddings: tokens (N, T) int64 to its state (N, hidden) after the last that is not padding.

    Raises ValueError for tokens of another shape or type, for padding that other tokens follow, and for a row that is
    all padding.

    >>> reader = SentenceReader(50, dim=8, hidden=16)
    >>> short, padded = torch.tensor([[2, 7, 3]]), torch.tensor([[2, 7, 3, 0, 0]])
    >>> reader(short).shape, torch.allclose(reader(short), reader(padded))
    (torch.Size([1, 16]), True)
    """

    def __init__(self, vocabulary: int, *, dim: int, hidden: int):
        super().__init__()
        self.vocabulary = vocabulary
        self.words = nn.Embedding(vocabulary, dim)
        self.gru = nn.GRU(dim, hidden, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        _check_tokens(ids)
        there = ids != PAD  # (N, T)
        if not (there[:, 0].all() and (there[:, 1:] <= there[:, :-1]).all()):
            raise ValueError("padding must follow the last token of a row, and no row may be all padding")
        states, _ = self.gru(self.words(ids))  # (N, T, hidden); what comes later changes none of them
        return states[torch.arange(len(ids), device=ids.device), there.sum(1) - 1]


class SentenceWriter(nn.Module):
    """p(next word | words before it, z): codes (N, latent) and tokens (N, T) int64 to scores (N, T, V).

    A GRU whose state starts at tanh(W z + b) and which is given z beside each word as well. The paper has an LSTM, and
    found little difference between such ways in (section 3). Scores are products with the word embeddings, as in
    GPT-2. Raises ValueError for tokens of another shape or type and for codes that do not fit them.

    >>> writer = SentenceWriter(50, latent=4, dim=8, hidden=16)
    >>> writer(torch.zeros(3, 4), torch.full((3, 6), 7)).shape
    torch.Size([3, 6, 50])
    """

    def __init__(self, vocabulary: int, *, latent: int, dim: int, hidden: int):
        super().__init__()
        self.vocabulary, self.latent = vocabulary, latent
        self.words = nn.Embedding(vocabulary, dim)
        nn.init.normal_(self.words.weight, std=dim**-0.5)  # scores by scalar products start small
        self.start = nn.Linear(latent, hidden)
        self.gru = nn.GRU(dim + latent, hidden, batch_first=True)
        self.out = nn.Linear(hidden, dim)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, z: Tensor, ids: Tensor) -> Tensor:
        return self.advance(z, ids, self.first_state(z))[0]

    def first_state(self, z: Tensor) -> Tensor:
        """The GRU's state before the first word, (1, N, hidden)."""
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"codes must be (N, {self.latent}), got {tuple(z.shape)}")
        return self.start(z).tanh()[None]

    def advance(self, z: Tensor, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N, T, V) after each of the tokens (N, T), which are read from `state` on, and the state then."""
        _check_tokens(ids)
        if len(z) != len(ids):
            raise ValueError(f"there must be a code for each row of tokens, got {len(z)} codes and {len(ids)} rows")
        x = torch.cat([self.words(ids), z[:, None].expand(-1, ids.shape[1], -1)], dim=2)  # (N, T, dim + latent)
        states, state = self.gru(x, state)
        return nn.functional.linear(self.out(states), self.words.weight, self.bias), state


class TextVAE(nn.Module):
    """p(x, z) = p(z) Π p(word | words before it, z) and the approximate posterior q(z|x), with the parts of a `VAE`.

    encoder: a `GaussianEncoder` whose body reads tokens. decoder: a `SentenceWriter`, or what is called like one.
    prior: a module of models/priors.py, by default N(0, I). `TextVAE.gru` builds both networks. Sentences are rows
    (N, T) int64 that begin with [CLS] and end with [SEP] and padding, numbered as in `course_utils.text`: the first
    token is given, all others are generated.

    >>> model = TextVAE.gru(50, latent=4)
    >>> sentences = torch.tensor([[2, 7, 8, 9, 3], [2, 7, 3, 0, 0]])
    >>> mu, log_var = model.encoder.distribution(sentences)
    >>> rng = torch.Generator().manual_seed(0)
    >>> mu.shape, model.reconstruct(sentences).shape, model.sample(4, rng, length=10).shape
    (torch.Size([2, 4]), torch.Size([2, 5]), torch.Size([4, 10]))
    """

    likelihood = "categorical"

    def __init__(self, encoder: GaussianEncoder, decoder: nn.Module, *, prior: nn.Module | None = None):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.prior = StandardNormal(encoder.out_dim) if prior is None else prior

    @classmethod
    def gru(cls, vocabulary: int, *, latent: int, dim: int = 64, hidden: int = 128, **options) -> "TextVAE":
        """One GRU of `hidden` units each way, over word embeddings of `dim` numbers, a table each."""
        encoder = GaussianEncoder(SentenceReader(vocabulary, dim=dim, hidden=hidden), hidden, latent=latent)
        return cls(encoder, SentenceWriter(vocabulary, latent=latent, dim=dim, hidden=hidden), **options)

    @torch.no_grad()
    def decode(self, z: Tensor, *, length: int, rng: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """Sentences written from the codes z, (N, latent) -> (N, length) int64: [CLS], words, [SEP], padding.

        Without rng the likeliest word is taken each time (greedy); with one, on the codes' device, a word is drawn from
        p ∝ exp(score / temperature). [CLS] and padding are never written inside a sentence; one that has not ended in
        time has no [SEP]. Raises ValueError for a length below 2 or a temperature that is not positive.
        """
        if length < 2:
            raise ValueError(f"length must be at least 2, for [CLS] and a word, got {length}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        state = self.decoder.first_state(z)
        ids = torch.full((len(z), 1), CLS, device=z.device)
        ended = torch.zeros(len(z), 1, dtype=torch.bool, device=z.device)
        for _ in range(length - 1):
            scores, state = self.decoder.advance(z, ids[:, -1:], state)
            scores = scores[:, 0].float() / temperature  # (N, V)
            scores[:, [PAD, CLS]] = -torch.inf
            if rng is None:
                word = scores.argmax(1, keepdim=True)
            else:
                word = torch.multinomial(scores.softmax(1), 1, generator=rng)
            word = word.masked_fill(ended, PAD)
            ids, ended = torch.cat([ids, word], dim=1), ended | (word == SEP)
        return ids

    def reconstruct(self, x: Tensor) -> Tensor:
        """What is written, greedily and in as many places, from the posterior's mean: (N, T) -> (N, T) int64."""
        return self.decode(self.encoder(x), length=x.shape[1])

    def sample(self, n: int, rng: torch.Generator, *, length: int, greedy: bool = False) -> Tensor:
        """n sentences (n, length) int64 from draws z of the prior, their words drawn too, or the likeliest each."""
        return self.decode(self.prior.sample(n, rng), length=length, rng=None if greedy else rng)


def _check_tokens(ids: Tensor) -> None:
    if ids.ndim != 2 or ids.dtype != torch.int64 or ids.shape[1] < 1:
        raise ValueError(f"tokens must be int64 of shape (N, at least 1), got {ids.dtype} {tuple(ids.shape)}")
