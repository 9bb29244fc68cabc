"""Anyone's own keypoint files."""
