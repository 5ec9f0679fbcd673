"""Turn what queries read into Gaussians, pixels, cameras, depths or points."""
