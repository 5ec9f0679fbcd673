"""Matching evidence that needs no learning: what other views say of points along the rays of a view."""
