"""Methods that optimise Gaussians on the input views of one scene, to compare with."""
