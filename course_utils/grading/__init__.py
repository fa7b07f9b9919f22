"""Grading what students handed in, out of their reach: `course grade SUBMISSIONS --out grades/`."""
