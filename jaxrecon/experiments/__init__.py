"""Experiments that test a claim of a paper on data everyone has; each writes its own page."""
