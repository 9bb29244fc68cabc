"""Rotations, cameras and Procrustes alignment: batched pure functions, `jax.numpy` only."""
