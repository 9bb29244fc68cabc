"""Synthetic photographs of the open body."""
