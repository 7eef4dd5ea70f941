"""Another registry's images, fetched when somebody first asks for them, and kept.

What is fetched lies in the same tree as what is pushed, so that a mirror can be served by Distribution, or as a private
registry, without moving a byte.
"""
