"""Fewer dimensions: PCA from the singular value decomposition, a trained autoencoder, and what neighbours survive."""

import warnings
from numbers import Integral, Real

import numpy as np
import torch
from sklearn import manifold
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.neighbors import kneighbors_graph
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from course_utils.cluster._checks import check_choice, check_whole
from course_utils.methods import Autoencoder
from course_utils.models import DenseAutoencoder
from course_utils.train import fit

FLOATS = [np.float64, np.float32]

# --- linear: PCA


def randomized_svd(X: np.ndarray, k: int, rng: np.random.RandomState, *, oversampling: int = 10, iterations: int = 7):
    """The first k of U, s, Vᵀ, from a random sketch of X's columns (Halko, Martinsson and Tropp 2011).

    k + oversampling random combinations of columns span nearly the space of the leading ones; multiplying by X Xᵀ
    `iterations` times, with an orthonormal basis kept at every half step (algorithm 4.4), makes "nearly" good where
    singular values fall slowly. The small matrix QᵀX is then decomposed exactly (algorithm 5.1).

    >>> X = np.outer(np.arange(1.0, 5.0), [3.0, 4.0])
    >>> _, s, Vt = randomized_svd(X, 1, np.random.RandomState(0))
    >>> s.round(3).tolist(), abs(Vt).round(3).tolist()
    ([27.386], [[0.6, 0.8]])
    """
    size = min(k + oversampling, *X.shape)
    Q, _ = np.linalg.qr(X @ rng.normal(size=(X.shape[1], size)).astype(X.dtype))  # (N, size)
    for _ in range(iterations):
        Z, _ = np.linalg.qr(X.T @ Q)
        Q, _ = np.linalg.qr(X @ Z)
    U, s, Vt = np.linalg.svd(Q.T @ X, full_matrices=False)
    return (Q @ U)[:, :k], s[:k], Vt[:k]


class PCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Principal component analysis: the orthogonal directions along which the data vary most.

    With X centred and X = U S Vᵀ, the components are the rows of Vᵀ, and sᵢ² / (N − 1) is the variance along the i-th.
    Of all subspaces of k dimensions the first k span the one that leaves the least squared error (Eckart and Young
    1936).

    n_components: how many, at most min(N, D); a part between 0 and 1 asks for as few as explain that part of the
    variance; None for all. whiten: scale the coordinates to variance 1; one without variance stays 0.
    svd_solver: "full"; "randomized", for few components of large data; "auto" takes the latter where min(N, D) > 500
    and fewer than a tenth of that are asked for. random_state: for the randomised solver.

    After `fit`: `components_` (k, D), each with its largest entry positive, as a sign means nothing; `mean_`,
    `singular_values_`, `explained_variance_`, `explained_variance_ratio_`, `n_components_`.

    Raises ValueError for one sample, NaN, or options out of range; TypeError for options of another kind.

    >>> X = np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    >>> pca = PCA(1).fit(X)
    >>> pca.components_.round(6).tolist(), pca.transform(X).round(6).ravel().tolist()
    ([[0.6, 0.8]], [-5.0, 0.0, 5.0])
    """

    def __init__(self, n_components=None, *, whiten=False, svd_solver="auto", random_state=None):
        self.n_components = n_components
        self.whiten = whiten
        self.svd_solver = svd_solver
        self.random_state = random_state

    def fit(self, X, y=None):
        """Find the components; y is ignored."""
        X = validate_data(self, X, dtype=FLOATS)
        if len(X) < 2:
            raise ValueError("a variance needs at least 2 samples, got n_samples=1")
        k = self._check(X.shape)
        self.mean_ = X.mean(axis=0)
        X = X - self.mean_
        few = isinstance(k, Integral) and min(X.shape) > 500 and k < min(X.shape) / 10
        if self.svd_solver == "randomized" or (self.svd_solver == "auto" and few):
            _, s, Vt = randomized_svd(X, k, check_random_state(self.random_state))
        else:
            _, s, Vt = np.linalg.svd(X, full_matrices=False)
        variance, total = s**2 / (len(X) - 1), X.var(axis=0, ddof=1).sum()
        ratio = variance / total if total > 0 else np.zeros_like(variance)
        if not isinstance(k, Integral):
            k = min(int(np.searchsorted(ratio.cumsum(), k)) + 1, len(s))
        largest = np.take_along_axis(Vt, np.abs(Vt).argmax(axis=1)[:, None], axis=1)
        self.components_ = (Vt * np.where(largest < 0, -1, 1).astype(X.dtype))[:k]
        self.singular_values_, self.explained_variance_, self.explained_variance_ratio_ = s[:k], variance[:k], ratio[:k]
        self.n_components_ = self._n_features_out = k
        return self

    def transform(self, X) -> np.ndarray:
        """Coordinates (N, k) along the components."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=FLOATS, reset=False)
        return (X - self.mean_) @ self.components_.T / self._scale()

    def inverse_transform(self, X) -> np.ndarray:
        """The points (N, D) at coordinates (N, k): after `transform`, the nearest in the components' subspace."""
        check_is_fitted(self)
        X = _as_coordinates(X, self.n_components_)
        return (X * self._scale()) @ self.components_ + self.mean_

    def _scale(self):
        """What whitening divides by, (k,); 1 where there is no variance beyond rounding."""
        variance = self.explained_variance_
        if not self.whiten:
            return np.ones_like(variance)
        return np.sqrt(np.where(variance > np.finfo(variance.dtype).eps ** 1.5 * variance[0], variance, 1))

    def _check(self, shape):
        check_choice(self.svd_solver, "svd_solver", ("auto", "full", "randomized"))
        k, most = self.n_components, min(shape)
        if k is None:
            return most
        if isinstance(k, Real) and not isinstance(k, Integral):
            if not 0 < k < 1:
                raise ValueError(f"n_components as a part of the variance must be between 0 and 1, got {k}")
            if self.svd_solver == "randomized":
                raise ValueError(f"n_components must be a whole number for the randomized solver, got {k}")
            return k
        check_whole(k, "n_components")
        if k > most:
            raise ValueError(f"n_components must be at most min(n_samples, n_features) = {most}, got {k}")
        return k

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _as_coordinates(X, columns: int) -> np.ndarray:
    X = check_array(X, dtype=FLOATS)
    if X.shape[1] != columns:
        raise ValueError(f"coordinates must have {columns} columns, one for each component, got {X.shape[1]}")
    return X


# --- trained: an autoencoder


class AutoencoderReducer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """The code of an autoencoder as coordinates: what PCA does with a line, done with a curve.

    A `DenseAutoencoder` of sizes (D, *hidden, n_components) is trained by `fit` to rebuild the data, which are centred
    and divided by one number, so that their mean variance is 1. Without hidden layers the subspace is that of PCA
    (Baldi and Hornik 1989).

    n_components: size of the code. hidden: sizes of the layers between. steps, batch_size, lr: of the training.
    random_state: of the weights at the start and the order of the data; None draws one from numpy's global state.

    After `fit`: `model_` (in double precision), `mean_`, `scale_`, `loss_curve_` (loss of each step).
    Raises ValueError for NaN or options out of range; TypeError for options of another kind.

    >>> X = np.random.default_rng(0).normal(size=(200, 1)) * [[3.0, 4.0]]
    >>> reducer = AutoencoderReducer(1, hidden=(), steps=300, lr=1e-2, random_state=0).fit(X)
    >>> reducer.transform(X).shape, bool(abs(reducer.inverse_transform(reducer.transform(X)) - X).mean() < 0.3)
    ((200, 1), True)
    """

    def __init__(self, n_components=2, *, hidden=(128,), steps=1000, batch_size=64, lr=3e-3, random_state=None):
        self.n_components = n_components
        self.hidden = hidden
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state

    def fit(self, X, y=None):
        """Train the network; y is ignored."""
        X = validate_data(self, X, dtype=FLOATS)
        for name in ("n_components", "steps", "batch_size"):
            check_whole(getattr(self, name), name)
        for size in self.hidden:
            check_whole(size, "a hidden layer")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.mean_ = X.mean(axis=0)
        self.scale_ = float(np.sqrt(X.var(axis=0).mean())) or 1.0
        x = torch.from_numpy(((X - self.mean_) / self.scale_).astype(np.float32))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            method = Autoencoder(DenseAutoencoder((X.shape[1], *self.hidden, self.n_components)))
            size = min(self.batch_size, len(x))
            history = fit(
                method, x, steps=self.steps, batch_size=size, seed=seed, lr=self.lr, device="cpu", progress=False
            )
        self.loss_curve_ = np.array(history.losses)
        self.model_ = method.model.double().eval()
        self._n_features_out = self.n_components
        return self

    @torch.no_grad()
    def transform(self, X) -> np.ndarray:
        """The codes (N, n_components)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=FLOATS, reset=False)
        x = torch.from_numpy(np.asarray((X - self.mean_) / self.scale_, dtype=np.float64))
        return self.model_.encoder(x).numpy().astype(X.dtype, copy=False)

    @torch.no_grad()
    def inverse_transform(self, X) -> np.ndarray:
        """What the decoder makes of codes, (N, D)."""
        check_is_fitted(self)
        X = _as_coordinates(X, self.n_components)
        x_hat = self.model_.decoder(torch.from_numpy(np.asarray(X, dtype=np.float64))).numpy()
        return (x_hat * self.scale_ + self.mean_).astype(X.dtype, copy=False)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.non_deterministic = self.random_state is None
        return tags


# --- by a graph of neighbours


def umap(**options):
    """UMAP (McInnes, Healy and Melville 2018) as its own library has it, with the library's options.

    umap-learn is imported when it is asked for, since it compiles for some seconds, and without its warning that
    TensorFlow, which nothing here needs, is not installed.

    >>> umap(n_neighbors=5).fit_transform(np.random.default_rng(0).normal(size=(20, 3))).shape
    (20, 2)
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)
        from umap import UMAP
    return UMAP(**options)


# --- what neighbours survive


def trustworthiness(X, embedded, *, n_neighbors: int = 5) -> float:
    """1 where all neighbours in the picture are neighbours in the data; less, the farther from it the false ones are.

    X: (N, D) data. embedded: (N, d) places in the picture. n_neighbors: k < N/2. Venna and Kaski (2001); computed by
    scikit-learn from all pairs of distances.

    Raises ValueError for shapes that do not fit, NaN or n_neighbors out of range; TypeError if that is not whole.

    >>> X = 1.5 ** np.arange(20.0)[:, None]
    >>> trustworthiness(X, 2 * X), trustworthiness(X, np.cos(X)) < 1
    (1.0, True)
    """
    X, embedded = _pair(X, embedded, n_neighbors, below=0.5)
    return float(manifold.trustworthiness(X, embedded, n_neighbors=n_neighbors))


def continuity(X, embedded, *, n_neighbors: int = 5) -> float:
    """1 where all neighbours in the data are neighbours in the picture; less, the farther they were torn apart.

    The trustworthiness of the data as a picture of the picture: the two change places (Venna and Kaski 2001).
    Arguments and errors as there.

    >>> X = 1.5 ** np.arange(20.0)[:, None]
    >>> continuity(X, -X), continuity(X, X % 10) < 1
    (1.0, True)
    """
    X, embedded = _pair(X, embedded, n_neighbors, below=0.5)
    return float(manifold.trustworthiness(embedded, X, n_neighbors=n_neighbors))


def neighbourhood_preservation(X, embedded, *, n_neighbors: int = 5) -> float:
    """The part of each example's k nearest neighbours in X that are among its k nearest in the picture, on average.

    Q_NX(k) of Lee and Verleysen (2009); places at random give about k / (N − 1). X: (N, D). embedded: (N, d).
    n_neighbors: k < N. Raises ValueError and TypeError as `trustworthiness` does.

    >>> X = np.array([[0.0], [1.0], [5.0], [6.0]])
    >>> neighbourhood_preservation(X, X**2, n_neighbors=1), neighbourhood_preservation(X, X % 5, n_neighbors=1)
    (1.0, 0.0)
    """
    X, embedded = _pair(X, embedded, n_neighbors, below=1)
    kept = kneighbors_graph(X, n_neighbors).multiply(kneighbors_graph(embedded, n_neighbors))
    return float(kept.sum() / (n_neighbors * len(X)))


def _pair(X, embedded, n_neighbors, *, below: float):
    X = check_array(X, dtype=FLOATS, input_name="X")
    embedded = check_array(embedded, dtype=FLOATS, input_name="embedded")
    check_consistent_length(X, embedded)
    check_whole(n_neighbors, "n_neighbors")
    if not n_neighbors < below * len(X):
        raise ValueError(f"n_neighbors must be less than {below * len(X):g} for {len(X)} samples, got {n_neighbors}")
    return X, embedded
