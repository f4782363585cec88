"""The same networks for inference: folded BatchNorm and faster convolutions."""
