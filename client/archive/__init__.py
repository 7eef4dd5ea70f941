"""Image archives: docker-archive, oci-archive and OCI layout, written from the cache and read into it."""
