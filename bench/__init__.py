"""Measures Layerhouse beside its peers; `python -m bench --help` tells how."""
