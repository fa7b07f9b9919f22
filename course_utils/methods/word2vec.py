"""Word2vec: a word is known by the company it keeps; tell the words near it from words drawn at random.

Mikolov, Sutskever, Chen, Corrado and Dean, "Distributed Representations of Words and Phrases and their
Compositionality", 2013. Symbols: v input vectors, v′ output vectors, k noise words a pair, U(w) a word's share of the
text, P_n(w) ∝ U(w)^(3/4) the noise distribution.
"""

import torch
from torch import Tensor, nn

from course_utils.losses import skip_gram_negative_sampling
from course_utils.methods.base import Method
from course_utils.models.transformer import WordVectors


class Word2Vec(Method):
    """Skip-gram with negative sampling (equation 4). Batches are (words, words near them), each (N,) int64.

    counts: (V,), how often each word occurs, from which the noise is drawn; k and `power` as in §2.2. The pairs and the
    subsampling of frequent words are made beforehand, by `text.skip_grams` and `text.subsample`. `encode` gives v. The
    authors' program takes steps of stochastic gradient descent, a pair at a time; here `fit` takes batches and AdamW.

    >>> from course_utils.models import WordVectors
    >>> method = Word2Vec(WordVectors(50, dim=8), counts=torch.ones(50))
    >>> pairs = torch.randint(50, (2, 16)).unbind()
    >>> round(method.training_loss(pairs, torch.Generator().manual_seed(0))[0].item(), 3)  # (1 + k) log 2
    4.159
    """

    network = WordVectors
    trains_on = "pairs of words"

    def __init__(self, encoder, *, counts: Tensor, k: int = 5, power: float = 0.75):
        super().__init__()
        if counts.shape != (encoder.vocabulary,) or not (counts >= 0).all() or not counts.sum() > 0:
            raise ValueError(
                f"counts must be ({encoder.vocabulary},), the words of the encoder, none negative and not all zero; "
                f"got {tuple(counts.shape)}"
            )
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.encoder = encoder
        self.out = nn.Embedding(encoder.vocabulary, encoder.out_dim)
        nn.init.zeros_(self.out.weight)  # as in the authors' program
        self.k = k
        share = counts.double() ** power * (counts > 0)
        self.register_buffer("up_to", (share.cumsum(0) / share.sum()).float())  # P_n of this word and all before it

    def noise(self, n: int, rng: torch.Generator) -> Tensor:
        """k words for each of n pairs, (n, k) int64, from P_n."""
        drawn = torch.rand(n, self.k, generator=rng, device=self.up_to.device)
        return torch.searchsorted(self.up_to, drawn, right=True).clamp(max=len(self.up_to) - 1)

    def training_loss(self, batch, rng):
        words, near = batch
        v_noise = self.out(self.noise(len(words), rng))  # (N, k, D)
        return skip_gram_negative_sampling(self.encoder(words), self.out(near), v_noise), {}
