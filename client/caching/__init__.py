"""The images of this machine: what they are made of, what they share, and how they are kept sound."""
