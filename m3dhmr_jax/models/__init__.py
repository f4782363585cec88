"""Layers, backbones, the mesh decoder, and the network made of them."""
