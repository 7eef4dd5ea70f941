"""The words of `registry`, a module for each group."""
