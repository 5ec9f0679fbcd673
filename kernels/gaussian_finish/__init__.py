"""The end of a Gaussian head: which Gaussians to keep, and from raw channels to activated Gaussians on their rays."""
