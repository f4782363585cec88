"""The network (fig. 2): layers, backbones, landmark heads and the mesh decoder."""
