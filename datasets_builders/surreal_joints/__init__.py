"""Joints of the synthetic people of SURREAL."""
