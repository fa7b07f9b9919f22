"""Masked language model: hide some words of a text and say what they were, from both sides.

Devlin, Chang, Lee and Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
2019.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.losses import masked_cross_entropy
from course_utils.methods.base import Method, evaluating
from course_utils.models.transformer import TokenHead, Transformer, start_for_width
from course_utils.text import mask_tokens


class MaskedLanguageModel(Method):
    """Task 1 of the paper (§3.1): `ratio` of the tokens are chosen, corrupted by `parts`, and predicted.

    Batches are tokens (N, T) int64 with [MASK] and the other special tokens numbered as in `course_utils.text`. parts:
    the shares that become [MASK], become a random token, and stay. It logs the accuracy at the chosen positions.
    What is not the paper's: the size and the start that suits it (`start_for_width`), the optimiser's schedule, which
    is `fit`'s, and dropout, which is the encoder's.

    >>> from course_utils.models import Transformer
    >>> method = MaskedLanguageModel(Transformer(100, dim=16, depth=1, heads=2, length=8))
    >>> loss, logs = method.training_loss(torch.randint(5, 100, (4, 8)), torch.Generator().manual_seed(0))
    >>> 3 < loss.item() < 7, sorted(logs)  # near log 100 = 4.6 before anything is learnt
    (True, ['accuracy'])
    """

    network = Transformer
    trains_on = "tokens"

    def __init__(self, encoder, *, ratio: float = 0.15, parts: tuple[float, float, float] = (0.8, 0.1, 0.1)):
        super().__init__()
        if encoder.causal:
            raise ValueError("a masked language model looks both ways: its encoder must have causal=False")
        self.encoder = encoder
        self.head = TokenHead(encoder.out_dim, vocabulary=encoder.vocabulary)
        self.ratio, self.parts = ratio, parts
        mask_tokens(torch.zeros(1, 1), torch.Generator(), vocabulary=encoder.vocabulary, ratio=ratio, parts=parts)

    def corrupt(self, ids: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Corrupted tokens and which were chosen, as in training."""
        return mask_tokens(ids, rng, vocabulary=self.encoder.vocabulary, ratio=self.ratio, parts=self.parts)

    @torch.no_grad()
    def predict(self, corrupted: Tensor, chosen: Tensor, segments: Tensor | None = None) -> Tensor:
        """Scores of all words at the chosen positions: (M, V) on the processor, in evaluation mode."""
        device, scores = self.head.bias.device, []
        with evaluating(self):
            for rows in torch.arange(len(corrupted)).split(256):
                given = None if segments is None else segments[rows].to(device)
                h = self.encoder.tokens(corrupted[rows].to(device), given)[chosen[rows].to(device)]
                scores.append(self.head(h, self.encoder.words.weight).float().cpu())
        return torch.cat(scores)

    def training_loss(self, batch, rng):
        corrupted, chosen = self.corrupt(batch, rng)
        return self._cloze(self.encoder.tokens(corrupted), batch, chosen)

    def _cloze(self, h: Tensor, ids: Tensor, chosen: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The loss of the head at the chosen positions, computed there alone: the others do not count."""
        scores, targets = self.head(h[chosen], self.encoder.words.weight), ids[chosen]  # (M, V), (M,)
        if len(targets) == 0:  # a tiny batch in which nothing was drawn
            return scores.sum() + 0 * h.sum(), {"accuracy": 0.0}
        return masked_cross_entropy(scores, targets), {"accuracy": (scores.argmax(1) == targets).float().mean().item()}


class BERT(MaskedLanguageModel):
    """Both tasks of the paper: masked tokens, and whether sentence B follows sentence A (§3.1), losses added (A.2).

    Batches are (tokens, segments, is_next) as `text.sentence_pairs` makes them. The second task is a linear classifier
    on the first token, [CLS], after a linear layer and tanh, the authors' pooler. `encode` averages over the tokens.

    >>> from course_utils.models import Transformer
    >>> method = BERT(Transformer(100, dim=16, depth=1, heads=2, length=8))
    >>> batch = torch.randint(5, 100, (4, 8)), torch.zeros(4, 8, dtype=torch.int64), torch.tensor([0, 1, 0, 1])
    >>> sorted(method.training_loss(batch, torch.Generator().manual_seed(0))[1])
    ['accuracy', 'next_accuracy', 'next_loss']
    """

    trains_on = "pairs of sentences"

    def __init__(self, encoder, **options):
        super().__init__(encoder, **options)
        self.pooler = nn.Sequential(nn.Linear(encoder.out_dim, encoder.out_dim), nn.Tanh())
        self.next = nn.Linear(encoder.out_dim, 2)
        self.pooler.apply(start_for_width)
        self.next.apply(start_for_width)

    @torch.no_grad()
    def predict_next(self, ids: Tensor, segments: Tensor) -> Tensor:
        """Scores (N, 2) of "B does not follow A" and "B follows A", on the processor, in evaluation mode."""
        mode, device = self.training, self.head.bias.device
        self.eval()
        try:
            parts = zip(ids.split(256), segments.split(256), strict=True)
            pooled = [self.pooler(self.encoder.tokens(a.to(device), b.to(device))[:, 0]) for a, b in parts]
            return torch.cat([self.next(part).float().cpu() for part in pooled])
        finally:
            self.train(mode)

    def training_loss(self, batch, rng):
        ids, segments, is_next = batch
        corrupted, chosen = self.corrupt(ids, rng)
        h = self.encoder.tokens(corrupted, segments)  # (N, T, dim)
        cloze, logs = self._cloze(h, ids, chosen)
        scores = self.next(self.pooler(h[:, 0]))
        loss = F.cross_entropy(scores, is_next)
        logs |= {"next_loss": loss.item(), "next_accuracy": (scores.argmax(1) == is_next).float().mean().item()}
        return cloze + loss, logs
