"""`python -m registry`: the command `registry`."""

from registry.cli import app

app(prog_name="registry")
