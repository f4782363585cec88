"""FreiHAND's files, the loader, and the augmentation on the device."""
