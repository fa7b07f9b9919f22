"""scikit-learn's own checks of an estimator, and the sentences for what cannot be clustered."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from course_utils.cluster import AgglomerativeClustering, GaussianMixture, KMeans, MiniBatchKMeans

ESTIMATORS = [KMeans(), MiniBatchKMeans(), AgglomerativeClustering(), GaussianMixture()]
ESTIMATORS += [AgglomerativeClustering(linkage=linkage) for linkage in ("single", "complete", "average")]
ESTIMATORS += [GaussianMixture(2, covariance_type=shape) for shape in ("diag", "spherical")]
ESTIMATORS += [KMeans(init="random"), KMeans(init="greedy k-means++")]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)
