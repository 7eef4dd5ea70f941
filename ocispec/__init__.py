"""The vocabulary of the OCI specifications: names, descriptors, manifests, platforms, headers, errors. No I/O."""
