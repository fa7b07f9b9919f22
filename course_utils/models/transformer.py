"""Transformers that read tokens: an encoder that looks both ways, as BERT, and one that looks back, as GPT."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TransformerLayer(nn.Module):
    """Attention and a feed-forward network, each with a residual connection and a layer norm: (N, T, dim) -> the same.

    norm_first: x ← x + f(norm(x)), as GPT-2; else x ← norm(x + f(x)), the original order (Vaswani et al. 2017, §3.1),
    which BERT keeps.

    >>> TransformerLayer(16, heads=2)(torch.rand(3, 5, 16)).shape
    torch.Size([3, 5, 16])
    """

    def __init__(
        self, dim: int, *, heads: int, expansion: int = 4, norm_first: bool = False, dropout: float = 0.0, eps=1e-12
    ):
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim must divide by the number of heads, got {dim} and {heads}")
        self.heads, self.norm_first = heads, norm_first
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim))
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *, causal: bool = False, seen: Tensor | None = None) -> Tensor:
        if self.norm_first:
            x = x + self.dropout(self._attend(self.norm1(x), causal, seen))
            return x + self.dropout(self.mlp(self.norm2(x)))
        x = self.norm1(x + self.dropout(self._attend(x, causal, seen)))
        return self.norm2(x + self.dropout(self.mlp(x)))

    def attention(self, x: Tensor, *, causal: bool = False, seen: Tensor | None = None) -> Tensor:
        """Who looks at whom, softmax(q kᵀ / √d) of every head: (N, heads, T, T); the last axis sums to 1."""
        q, k, _ = self._heads(self.norm1(x) if self.norm_first else x)
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
        if causal:
            scores = scores.masked_fill(scores.new_ones(scores.shape[2:]).triu(1).bool(), -torch.inf)
        if seen is not None:
            scores = scores.masked_fill(~seen[:, None, None, :], -torch.inf)
        return scores.softmax(3)

    def _attend(self, x: Tensor, causal: bool, seen: Tensor | None) -> Tensor:
        mask = None
        if seen is not None:
            mask = seen[:, None, None, :]  # (N, 1, 1, T): which tokens may be looked at
            mask = mask & mask.new_ones(x.shape[1], x.shape[1]).tril() if causal else mask
        rate = self.dropout.p if self.training else 0.0
        heads = F.scaled_dot_product_attention(
            *self._heads(x), attn_mask=mask, dropout_p=rate, is_causal=causal and seen is None
        )
        return self.out(heads.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, (N, heads, T, dim / heads) each."""
        return self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class Transformer(nn.Module):
    """Tokens (N, T) int64, T ≤ length, to one vector a token, or by `forward` to one vector (N, dim) a text.

    causal=False is BERT's encoder (Devlin et al. 2019, §3): word, position and segment embeddings, a layer norm, and
    `depth` layers that normalise after each part. Given the weights of Hugging Face's `BertModel`, its values are
    the same. causal=True is GPT-2's (Radford et al. 2019, §2.3): each token sees those before it and itself, layers
    normalise first, and a norm follows the last; there are no segments. norm_first=True normalises first in an encoder
    that looks both ways, too: it then trains at higher learning rates (Xiong et al. 2020). Weights start as
    `start_for_width` says and not from the papers' N(0, 0.02²), which belongs to networks ten times as wide.

    Padding (token 0) is looked at by no other token. `forward` gives the mean over the tokens that are not padding;
    the papers take other summaries, BERT its first token. dropout is off by default: the papers' 0.1 is for models
    that see their text many times. `out_dim` is `dim`.

    >>> encoder = Transformer(100, dim=16, depth=1, heads=2, length=8)
    >>> ids = torch.randint(5, 100, (2, 8))
    >>> encoder(ids).shape, encoder.tokens(ids).shape, encoder.attention(ids).shape
    (torch.Size([2, 16]), torch.Size([2, 8, 16]), torch.Size([2, 2, 8, 8]))
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        dim: int = 96,
        depth: int = 2,
        heads: int = 4,
        length: int = 64,
        expansion: int = 4,
        causal: bool = False,
        norm_first: bool | None = None,
        dropout: float = 0.0,
        eps: float = 1e-12,
    ):
        super().__init__()
        self.vocabulary, self.length, self.causal, self.out_dim = vocabulary, length, causal, dim
        self.norm_first = causal if norm_first is None else norm_first
        self.words, self.positions = nn.Embedding(vocabulary, dim), nn.Embedding(length, dim)
        self.segments = None if causal else nn.Embedding(2, dim)
        self.layers = nn.ModuleList(
            TransformerLayer(
                dim, heads=heads, expansion=expansion, norm_first=self.norm_first, dropout=dropout, eps=eps
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=eps)  # before the layers as in BERT, or after those that normalise first
        self.dropout = nn.Dropout(dropout)
        self.apply(start_for_width)

    def forward(self, ids: Tensor) -> Tensor:
        h, seen = self.tokens(ids), (ids != 0)[:, :, None]  # (N, T, dim), (N, T, 1)
        return (h * seen).sum(1) / seen.sum(1).clamp(min=1)

    def tokens(self, ids: Tensor, segments: Tensor | None = None) -> Tensor:
        """What becomes of every token: (N, T, dim). segments: (N, T), 0 for the first of two texts, 1 for the other."""
        x, seen = self._embedded(ids, segments)
        for layer in self.layers:
            x = layer(x, causal=self.causal, seen=seen)
        return self.norm(x) if self.norm_first else x

    def attention(self, ids: Tensor, segments: Tensor | None = None, *, layer: int = -1) -> Tensor:
        """Who looks at whom in a layer, the last unless another is named: (N, heads, T, T)."""
        x, seen = self._embedded(ids, segments)
        layers = list(self.layers)
        for before in layers[: layers.index(layers[layer])]:
            x = before(x, causal=self.causal, seen=seen)
        return layers[layer].attention(x, causal=self.causal, seen=seen)

    def _embedded(self, ids: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Embeddings (N, T, dim), and which tokens are not padding, (N, T), or None where all are."""
        if ids.ndim != 2 or ids.dtype != torch.int64 or ids.shape[1] > self.length:
            raise ValueError(
                f"tokens must be int64 of shape (N, at most {self.length}), got {ids.dtype} {tuple(ids.shape)}"
            )
        if segments is not None and (self.segments is None or segments.shape != ids.shape):
            wanted = (
                "none, as this transformer is causal" if self.causal else f"shaped like the tokens {tuple(ids.shape)}"
            )
            raise ValueError(f"segments must be {wanted}, got {tuple(segments.shape)}")
        x = self.words(ids) + self.positions.weight[: ids.shape[1]]
        if self.segments is not None:
            x = x + self.segments(torch.zeros_like(ids) if segments is None else segments)
        if not self.norm_first:
            x = self.norm(x)
        seen = ids != 0
        return self.dropout(x), None if seen.all() else seen


class TokenHead(nn.Module):
    """Scores of all words at a token, BERT's masked language model head: (..., dim) -> (..., V).

    A linear layer, GELU and layer norm, then the scalar products with the word embeddings (V, dim), which are shared
    with the encoder and therefore given at each call, and a bias (the authors' `get_masked_lm_output`).

    >>> TokenHead(16, vocabulary=100)(torch.rand(3, 16), torch.rand(100, 16)).shape
    torch.Size([3, 100])
    """

    def __init__(self, dim: int, *, vocabulary: int, eps: float = 1e-12):
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim, eps=eps))
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.apply(start_for_width)

    def forward(self, h: Tensor, words: Tensor) -> Tensor:
        return F.linear(self.transform(h), words, self.bias)


class WordVectors(nn.Module):
    """A vector for every word: (N,) int64 -> (N, dim); starts uniform in ±1/(2 dim), as in the word2vec program.

    >>> WordVectors(50, dim=8)(torch.tensor([3, 4])).shape
    torch.Size([2, 8])
    """

    def __init__(self, vocabulary: int, *, dim: int = 64):
        super().__init__()
        self.vocabulary, self.out_dim = vocabulary, dim
        self.words = nn.Embedding(vocabulary, dim)
        nn.init.uniform_(self.words.weight, -0.5 / dim, 0.5 / dim)

    def forward(self, ids: Tensor) -> Tensor:
        return self.words(ids)


def start_for_width(part: nn.Module) -> None:
    """Linear layers from N(0, 1 / fan-in), embeddings from N(0, 1 / (4 dim)), biases 0: `network.apply(...)`.

    BERT and GPT-2 draw everything from N(0, 0.02²), at widths of 768 and more, where this is much the same: 0.036 for
    linear layers (0.018 for those that read 3,072 numbers), 0.018 for embeddings. At a width of 64 a layer from
    N(0, 0.02²) passes on a sixth of its input's size; attention, whose scores pass two such layers, starts all but
    uniform, and a masked language model stays at the frequencies of the words for hundreds of updates. Scores by the
    scalar product of a normalised vector with the embeddings start with variance 1/4 at any width, so a language
    model's loss starts near log V + 1/8.

    >>> layer = nn.Linear(2500, 10)
    >>> start_for_width(layer)
    >>> round(layer.weight.std().item(), 2), layer.bias.abs().max().item()
    (0.02, 0.0)
    """
    if isinstance(part, nn.Linear):
        nn.init.normal_(part.weight, std=part.in_features**-0.5)
        if part.bias is not None:
            nn.init.zeros_(part.bias)
    if isinstance(part, nn.Embedding):
        nn.init.normal_(part.weight, std=0.5 * part.embedding_dim**-0.5)
