"""Measures the mirror beside going direct, and beside docker-registry's; `python -m bench.mirror --help` tells how."""
