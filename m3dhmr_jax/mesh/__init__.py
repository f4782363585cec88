"""Fixed tables and geometry of a triangle mesh."""
