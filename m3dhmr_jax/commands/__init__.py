"""The commands of `m3dhmr`, one module each."""
