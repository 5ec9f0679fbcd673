"""Approximate orthogonalisation of a matrix by a quintic Newton-Schulz iteration."""
