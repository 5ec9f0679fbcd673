"""What 3D Gaussian splatting minimises: absolute error and structural dissimilarity."""
