"""Microbenchmarks: what a step costs, beside what moving its bytes costs. Run by ``python -m flatstep bench``."""
