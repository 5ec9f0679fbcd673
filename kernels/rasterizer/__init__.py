"""Draw Gaussians."""
