"""Variational autoencoder of sentences, and the word dropout that keeps its decoder from doing without the code.

Bowman, Vilnis, Vinyals, Dai, Jozefowicz and Bengio, "Generating Sentences from a Continuous Space", 2016.
"""

import torch
from torch import Tensor

from course_utils.methods.variational_autoencoder import VariationalAutoencoder, token_log_likelihood
from course_utils.models import TextVAE
from course_utils.text import SPECIAL, UNK


def drop_words(ids: Tensor, rng: torch.Generator, *, rate: float) -> Tensor:
    """Tokens with each ordinary one replaced by [UNK] with probability `rate`: Bowman et al. 2016, section 3.1.

    ids: any shape, int64. A copy is returned; special tokens, padding among them, stay as they are in it. At rate = 1
    nothing but places is left: the paper's inputless decoder. rng lives on the tokens' device. Raises ValueError for a
    rate outside [0, 1].

    >>> drop_words(torch.tensor([[2, 7, 8, 3, 0]]), torch.Generator(), rate=1.0).tolist()
    [[2, 1, 1, 3, 0]]
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is a probability, in [0, 1], got {rate}")
    dropped = torch.rand(ids.shape, generator=rng, device=ids.device) < rate
    return ids.masked_fill(dropped & (ids >= len(SPECIAL)), UNK)


class TextVariationalAutoencoder(VariationalAutoencoder):
    """`VariationalAutoencoder` for a `TextVAE`: −E_q[log p(x|z)] + β KL(q(z|x) ‖ p(z)) in nats a sentence.

    Batches are sentences (N, T) int64 as `TextVAE` describes them. word_dropout: the probability with which a word that
    the decoder reads is replaced by [UNK] in training; what it has to say, and what the encoder reads, never are. beta,
    free_bits and warmup are those of `VariationalAutoencoder`; the logged log-likelihood is that of training, with
    words dropped. Features are the posterior's means.

    >>> method = TextVariationalAutoencoder(TextVAE.gru(50, latent=4), word_dropout=0.3, warmup=0.5)
    >>> sentences = torch.tensor([[2, 7, 8, 9, 3], [2, 7, 3, 0, 0]])
    >>> loss, logs = method.training_loss(sentences, torch.Generator().manual_seed(0))
    >>> loss.shape, sorted(logs), method.encode(sentences).shape
    (torch.Size([]), ['kl', 'log_likelihood'], torch.Size([2, 4]))
    """

    trains_on = "tokens"

    def __init__(self, model: TextVAE, *, word_dropout: float = 0.0, **options):
        super().__init__(model, **options)
        if not 0 <= word_dropout <= 1:
            raise ValueError(f"word_dropout is a probability, in [0, 1], got {word_dropout}")
        self.word_dropout = word_dropout

    def log_likelihood(self, x, z, rng):
        return token_log_likelihood(self.model, x, z, read=drop_words(x, rng, rate=self.word_dropout))
