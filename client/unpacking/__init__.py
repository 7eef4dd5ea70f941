"""Images put together into a root file system, and into a bundle that an OCI runtime starts.

It is not called `unpack`: that name of the package `client` is the function's.
"""
