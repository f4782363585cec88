"""Labels photos and videos of hands by the fit of a hand model, in FreiHAND's layout."""
