"""What an evaluation found, as one page for the eye."""
