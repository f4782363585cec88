"""Pictures of what the network answers."""
