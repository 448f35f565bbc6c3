"""Information geometry, free of reinforcement learning: distributions, Fisher matrices, solvers, line searches.

A Fisher matrix or approximation is a file here and a YAML in `conf/fisher/`.
"""
