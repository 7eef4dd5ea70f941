"""The registry: the distribution specification's endpoints over a store."""
