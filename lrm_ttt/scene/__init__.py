"""Nouns and geometry: cameras, views, Gaussians and the similarities between their frames."""
