"""Public PyTorch weights as weights of this program, without PyTorch."""
