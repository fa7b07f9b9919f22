"""Objectives: one pure function each, named and typed as in its paper. Gradients flow; nothing is kept."""

from course_utils.losses.contrastive import nt_xent
from course_utils.losses.metric import contrastive_margin, mine_triplets, triplet_margin
from course_utils.losses.reconstruction import reconstruction

__all__ = ["contrastive_margin", "mine_triplets", "nt_xent", "reconstruction", "triplet_margin"]
