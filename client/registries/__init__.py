"""Talking to registries: an endpoint's API, a repository behind its mirrors, what stands there, what fails there."""
