"""Facial landmarks of the 300-VW videos."""
