"""The words of the command `pullclient`, a module for each group of them."""
