"""Access to registries: logins, tokens, and the credentials that docker and podman keep."""
