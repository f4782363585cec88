"""The synthetic set, the loader, and what happens to an example on the device."""
