"""MPII Human Pose with the pseudo ground truth of CLIFF."""
