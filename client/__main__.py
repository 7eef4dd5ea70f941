"""`python -m client` is `pullclient`."""

from client.cli import app

app(prog_name="pullclient")
