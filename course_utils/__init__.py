"""Models, objectives and metrics for a course on self-supervised and unsupervised learning."""

__version__ = "0.1.0"
