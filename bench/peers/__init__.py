"""Ways to take a step, one file a library, each used as its own documentation advises. Loaded by front_ends.py.

A module is imported only where what it needs can be; ``PEERS`` is all that is asked of it.
"""
