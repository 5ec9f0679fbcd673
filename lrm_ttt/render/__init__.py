"""Gaussians and cameras in, renderings out."""
