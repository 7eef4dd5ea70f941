"""Endpoints of the distribution specification, one module per group; each handler opens with its id (`end-5`)."""
