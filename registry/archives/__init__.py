"""Images out of archives into a registry's storage and back, without a server: moves across an air gap."""
