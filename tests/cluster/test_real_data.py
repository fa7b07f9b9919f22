"""What each algorithm makes of Ultsch's Fundamental Clustering Problem Suite: adjusted Rand scores, recorded here.

Ultsch, "Clustering with SOM: U*C", 2005; files as published by Gagolewski, clustering-data-v1. Points that the authors
label as noise (0) are clustered and not scored. Numbers of clusters are those of the labels.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from course_utils.cluster import AgglomerativeClustering, GaussianMixture, KMeans

FOLDER = Path(os.environ.get("COURSE_DATA", "/nowhere")) / "clustering-data-v1" / "fcps"
ALGORITHMS = {
    "k-means": lambda k: KMeans(k, random_state=0),
    "single": lambda k: AgglomerativeClustering(k, linkage="single"),
    "complete": lambda k: AgglomerativeClustering(k, linkage="complete"),
    "average": lambda k: AgglomerativeClustering(k, linkage="average"),
    "ward": lambda k: AgglomerativeClustering(k, linkage="ward"),
    "mixture": lambda k: GaussianMixture(k, n_init=5, max_iter=500, random_state=0),
}
SCORES = {  # in the order of ALGORITHMS
    "atom": (0.182, 1.000, 0.084, 0.099, 0.099, 0.028),
    "chainlink": (0.093, 1.000, 0.313, 0.272, 0.280, 0.910),
    "engytime": (0.815, 0.000, 0.041, 0.051, 0.718, 0.872),
    "hepta": (1.000, 1.000, 1.000, 1.000, 1.000, 1.000),
    "lsun": (0.436, 1.000, 0.405, 0.361, 0.369, 1.000),
    "target": (0.635, 1.000, 0.207, 0.146, 0.639, 0.652),
    "tetra": (1.000, 0.000, 0.987, 0.993, 0.967, 1.000),
    "twodiamonds": (1.000, 0.000, 0.965, 0.995, 1.000, 1.000),
    "wingnut": (0.859, 1.000, 1.000, 1.000, 0.601, 0.863),
}


def scores(name):
    X, y = (np.loadtxt(FOLDER / f"{name}.{kind}.gz", ndmin=ndmin) for kind, ndmin in (("data", 2), ("labels0", 1)))
    labels = {algorithm: make(len(set(y[y > 0]))).fit_predict(X) for algorithm, make in ALGORITHMS.items()}
    return {algorithm: adjusted_rand_score(y[y > 0], found[y > 0]) for algorithm, found in labels.items()}


@pytest.mark.real_data
@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs $COURSE_DATA/clustering-data-v1/fcps")
@pytest.mark.parametrize("name", SCORES)
def test_the_recorded_scores_are_what_the_algorithms_reach(name):
    found = scores(name)
    for algorithm, recorded in zip(ALGORITHMS, SCORES[name], strict=True):
        assert found[algorithm] == pytest.approx(recorded, abs=0.02), algorithm
