"""The verdict on a response: the math grader, in processes that can be killed; it stands on `polaris.types`, and `data`, `sampling` and
`evaluation` ask it."""

from polaris.reward.grade import grade
from polaris.types import GroundTruth, Verdict

__all__ = ["GroundTruth", "Verdict", "grade"]
