"""Lowers a trained network to a compiled program (``.rvb``)."""
