"""3DPW, people outdoors filmed by a moving camera."""
