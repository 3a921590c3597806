"""The wheel: what is due next, from what the workspace holds and what a policy wants."""
