"""Triangle meshes: spirals, coarsening and the mesh hierarchy that the decoder refines."""
