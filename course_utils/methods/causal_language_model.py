"""Causal language model: say the next word from all words before it, and then go on writing.

Radford, Wu, Child, Luan, Amodei and Sutskever, "Language Models are Unsupervised Multitask Learners" (GPT-2), 2019.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.losses import masked_cross_entropy
from course_utils.methods.base import Method
from course_utils.models.transformer import Transformer
from course_utils.text import PAD


def looking_back(vocabulary: int, **options) -> Transformer:
    """The encoder that `CausalLanguageModel` is written for: a `Transformer` with causal=True.

    >>> looking_back(50, dim=16, heads=2).causal
    True
    """
    return Transformer(vocabulary, causal=True, **options)


class CausalLanguageModel(Method):
    """p(text) = Π p(token | tokens before it) (equation 1), with scores by the word embeddings, shared as in GPT-2.

    Batches are tokens (N, T) int64: the first T − 1 are read and the last T − 1 predicted, all in one pass, since no
    token sees a later one. Padding is not predicted. It logs the accuracy.

    >>> method = CausalLanguageModel(looking_back(50, dim=16, depth=1, heads=2, length=8))
    >>> loss, _ = method.training_loss(torch.randint(5, 50, (4, 8)), torch.Generator().manual_seed(0))
    >>> 3 < loss.item() < 5  # near log 50 = 3.9 before anything is learnt
    True
    """

    network = staticmethod(looking_back)
    trains_on = "tokens"

    def __init__(self, encoder):
        super().__init__()
        if not encoder.causal:
            raise ValueError("a causal language model must not see what it predicts: its encoder needs causal=True")
        self.encoder = encoder

    def forward(self, ids: Tensor) -> Tensor:
        """Scores of the token after each token: (N, T) -> (N, T, V)."""
        return F.linear(self.encoder.tokens(ids), self.encoder.words.weight)

    def training_loss(self, batch, rng):
        scores, targets = self(batch[:, :-1]), batch[:, 1:]  # (N, T − 1, V), (N, T − 1)
        there = targets != PAD
        accuracy = (scores.argmax(2) == targets)[there].float().mean().item()
        return masked_cross_entropy(scores, targets, mask=there), {"accuracy": accuracy}

    @torch.no_grad()
    def surprise(self, ids: Tensor) -> Tensor:
        """−log p of every token but the first, given those before it: (N, T) -> (N, T − 1) nats; 0 for padding."""
        mode, device, parts = self.training, self.encoder.words.weight.device, []
        self.eval()
        try:
            for part in ids.split(128):
                part = part.to(device)
                scores = self(part[:, :-1]).float().transpose(1, 2)  # (n, V, T − 1)
                parts.append(F.cross_entropy(scores, part[:, 1:], reduction="none", ignore_index=PAD).cpu())
        finally:
            self.train(mode)
        return torch.cat(parts)

    @torch.no_grad()
    def generate(
        self, prompt: Tensor, n: int, *, rng: torch.Generator, temperature: float = 1.0, top_k: int | None = None
    ) -> Tensor:
        """The prompt (N, T) int64 and n tokens more, each drawn from p ∝ exp(score / temperature): (N, T + n).

        top_k: only the k most likely tokens may be drawn (Fan, Lewis and Dauphin 2018, §5.2); 1 takes the likeliest.
        Padding is never drawn. A text longer than the encoder's length is continued from its last tokens. rng lives on
        the prompt's device.
        """
        if prompt.ndim != 2 or prompt.shape[1] < 1:
            raise ValueError(f"prompt must be (N, at least 1), got {tuple(prompt.shape)}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        mode, ids = self.training, prompt
        self.eval()
        try:
            for _ in range(n):
                scores = self(ids[:, -self.encoder.length :])[:, -1].float() / temperature  # (N, V)
                scores[:, PAD] = -torch.inf
                if top_k is not None and top_k < scores.shape[1]:
                    least = scores.topk(top_k, dim=1).values[:, -1:]
                    scores = scores.masked_fill(scores < least, -torch.inf)
                drawn = torch.multinomial(scores.softmax(1), 1, generator=rng)  # (N, 1)
                ids = torch.cat([ids, drawn], dim=1)
        finally:
            self.train(mode)
        return ids
