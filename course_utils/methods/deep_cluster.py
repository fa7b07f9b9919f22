"""DeepCluster: cluster what the network sees, teach the network to tell the clusters, and do it again.

Caron, Bojanowski, Joulin and Douze, "Deep Clustering for Unsupervised Learning of Visual Features", 2018.
Symbols: f the network, W the classifier on top, C the centroids, y the clusters' numbers, which are the labels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.distributed import gather
from course_utils.methods.base import Method, encode
from course_utils.models.heads import MLP, cosines
from course_utils.models.momentum import follow, frozen_copy
from course_utils.precision import full_precision
from course_utils.views import View, augment


class DeepCluster(Method):
    """Equations 1 and 2 by turns: classify views of the images by their clusters, then cluster the images anew.

    f is the encoder with a head. As in §3.3 and §3.4, images are clustered as they are and classified in random views;
    their features are reduced by PCA, whitened and put to length 1; an empty cluster takes half of another; and the
    classifier starts afresh after every clustering.

    Departures: a clustering serves `every` updates, fewer at first, and is of the last `bank` images, where the
    paper's is of all images once an epoch. The labels are those that all images would have been given at once: a copy
    of the network as it was then gives each its nearest centroid when it comes. The classifier compares directions
    and starts at the centroids, as in DeepCluster-v2 (Caron et al. 2020), and not at random. Two views of each image
    are classified. Images are not drawn evenly over the clusters, and there is no Sobel filter.

    size: height of the images, which are kept for the next clustering. `assign` gives images their clusters.

    >>> from course_utils.models import ConvEncoder
    >>> method = DeepCluster(ConvEncoder(1, width=8), clusters=10)
    >>> loss, _ = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> method.assign(torch.rand(4, 1, 28, 28)).shape
    torch.Size([4])
    """

    def __init__(
        self,
        encoder,
        *,
        clusters: int = 512,
        every: int = 10,
        bank: int = 4096,
        components: int = 16,
        projection_dim: int = 64,
        temperature: float = 0.3,
        size: int = 28,
        view: View = augment,
    ):
        super().__init__()
        if clusters < 2 or every < 1:
            raise ValueError(f"there must be at least 2 clusters and 1 update a clustering, got {clusters} and {every}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if not 1 <= components <= projection_dim:
            raise ValueError(f"components must lie between 1 and projection_dim {projection_dim}, got {components}")
        self.encoder = encoder
        self.head = MLP(encoder.out_dim, encoder.out_dim, projection_dim)
        self.classifier = nn.Linear(components, clusters, bias=False)
        self.labeller = frozen_copy(nn.Sequential(self.encoder, self.head))
        self.register_buffer("mean", torch.zeros(projection_dim))
        self.register_buffer("whitening", torch.eye(projection_dim, components))
        self.register_buffer("centroids", F.normalize(torch.randn(clusters, components), dim=1))
        self.register_buffer("bank", torch.zeros(bank, encoder.in_channels, size, size))
        self.register_buffer("updates", torch.tensor(0))
        self.register_buffer("seen", torch.tensor(0))
        self.every, self.temperature, self.view = every, temperature, view

    def training_loss(self, batch, rng):
        if batch.shape[2:] != self.bank.shape[2:]:
            size = self.bank.shape[-1]
            raise ValueError(f"this method was built with size={size}, and got images {tuple(batch.shape)}")
        y = self.assign(batch).repeat(2)
        views = torch.cat([self.view(batch, rng), self.view(batch, rng)])
        logits = cosines(self._whitened(self.head(self.encoder(views))), self.classifier.weight) / self.temperature
        self._batch = batch
        return F.cross_entropy(logits, y), {"accuracy": (logits.argmax(1) == y).float().mean().item()}

    def assign(self, x: Tensor) -> Tensor:
        """The cluster of each image, (N,) int64: the centroid nearest to what the network made of it at the time."""
        return torch.cdist(self._whitened(self._features(x)), self.centroids).argmin(1)

    @torch.no_grad()
    def after_step(self, progress):
        images = gather(self._batch)[-len(self.bank) :]
        places = (self.seen + torch.arange(len(images), device=images.device)) % len(self.bank)
        self.bank[places] = images
        self.seen += len(images)
        self.updates += 1
        updates = self.updates.item()
        if updates % self.every == 0 or (updates < self.every and updates.bit_count() == 1):
            self.cluster()

    @torch.no_grad()
    def cluster(self):
        """Cluster the images of the bank by what the network makes of them now; the classifier begins afresh."""
        follow(self.labeller, nn.Sequential(self.encoder, self.head), momentum=0.0)
        f = self._features(self.bank[: self.seen])
        self.mean.copy_(f.mean(0))
        variances, directions = torch.linalg.eigh(torch.cov(f.T))  # rising
        scales = (variances + 1e-5 * variances[-1] + 1e-12).rsqrt()
        self.whitening.copy_((directions * scales).flip(1)[:, : self.whitening.shape[1]])
        points, k = self._whitened(f), len(self.centroids)
        self.centroids.copy_(k_means(points, points[torch.linspace(0, len(points) - 1, k).round().long()]))
        self.classifier.weight.copy_(self.centroids)

    def _features(self, x):
        """What the labeller makes of images: young networks differ in digits that bf16 lacks, and whitening needs."""
        return encode(self.labeller, x, precision="32-true").to(self.mean.device)

    @full_precision
    def _whitened(self, f):
        return F.normalize((f - self.mean) @ self.whitening, dim=1)


def k_means(points: Tensor, start: Tensor, *, iterations: int = 20) -> Tensor:
    """Lloyd's algorithm on points (N, D) from the centroids `start` (k, D): the centroids it ends with.

    An empty cluster gets the centroid of the largest one, moved a little, and so about half of its points (§3.3; the
    paper takes any cluster that is not empty).

    >>> k_means(torch.tensor([[0.0], [1.0], [10.0], [11.0]]), torch.tensor([[0.0], [1.0]])).flatten().tolist()
    [0.5, 10.5]
    """
    centroids, k = start.clone(), len(start)
    for _ in range(iterations):
        nearest = torch.cdist(points, centroids).argmin(1)
        counts = torch.bincount(nearest, minlength=k).to(points.dtype)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
        centroids = sums / counts.clamp_min(1)[:, None]
        for empty in (counts == 0).nonzero().flatten():
            largest = counts.argmax()
            shift = 1e-3 * (1 - 2 * (torch.arange(points.shape[1], device=points.device) % 2))
            centroids[empty], centroids[largest] = centroids[largest] * (1 + shift), centroids[largest] * (1 - shift)
            counts[empty] = counts[largest] = counts[largest] / 2
    return centroids
