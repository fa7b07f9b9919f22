"""What a representation is worth: probes, neighbours, label efficiency and label-free health."""

from course_utils.data.types import balanced_subset
from course_utils.evaluate.clusters import (
    bootstrap_stability,
    cluster_scores,
    consensus,
    gap_statistic,
    purity,
)
from course_utils.evaluate.factors import factor_probes
from course_utils.evaluate.fine_tuning import fine_tune
from course_utils.evaluate.generative import frechet_distance, precision_recall
from course_utils.evaluate.health import alignment, cka, collapse, rankme, uniformity
from course_utils.evaluate.likelihood import active_units, elbo, importance_weighted_likelihood
from course_utils.evaluate.neighbours import knn_accuracy, knn_scores
from course_utils.evaluate.probes import (
    ProbeResult,
    RegressionResult,
    label_efficiency,
    linear_probe,
    regression_probe,
)
from course_utils.evaluate.scores import reconstruction_error, silhouette, top_k_accuracy

__all__ = [
    "ProbeResult",
    "RegressionResult",
    "active_units",
    "alignment",
    "balanced_subset",
    "bootstrap_stability",
    "cka",
    "cluster_scores",
    "collapse",
    "consensus",
    "elbo",
    "factor_probes",
    "fine_tune",
    "frechet_distance",
    "gap_statistic",
    "importance_weighted_likelihood",
    "knn_accuracy",
    "knn_scores",
    "label_efficiency",
    "linear_probe",
    "precision_recall",
    "purity",
    "rankme",
    "reconstruction_error",
    "regression_probe",
    "silhouette",
    "top_k_accuracy",
    "uniformity",
]
