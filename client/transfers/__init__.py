"""Moving images: pull, push and copy, from resolving a name to the last byte."""
