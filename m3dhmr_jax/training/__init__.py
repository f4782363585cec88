"""Training: the loop, one step as a pure function, the optimizer and the logger."""
