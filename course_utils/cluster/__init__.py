"""Clustering written out: k-means, mixtures of Gaussians, hierarchies. scikit-learn's interface, arrays in and out."""

from course_utils.cluster.agglomerative import AgglomerativeClustering
from course_utils.cluster.gaussian_mixture import GaussianMixture
from course_utils.cluster.k_means import KMeans, MiniBatchKMeans

__all__ = ["AgglomerativeClustering", "GaussianMixture", "KMeans", "MiniBatchKMeans"]
