"""How detectors are trained: recipes, the loop, the grid, the shared detector, pre-training."""
