"""Two networks, or a network and the fit, on the same images."""
