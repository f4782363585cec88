"""FreiHAND as a TFDS dataset (`freihand`), without TensorFlow."""
