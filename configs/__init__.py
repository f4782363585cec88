"""Experiments: resnet18.py holds every field, the others override what differs."""
