"""From photos and videos to hands in front of the camera, for people who bring their own."""
