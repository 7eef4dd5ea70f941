"""Measures pullclient beside its peers; `python -m bench.client --help` tells how."""
