"""Where bytes rest: engines, Distribution's tree, repositories, and the OCI image layout."""
