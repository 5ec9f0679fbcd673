"""Orthogonalise matrices by Newton-Schulz iterations."""
