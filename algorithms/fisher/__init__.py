"""Information geometry, free of reinforcement learning: distributions, Fisher operators, solvers, line searches."""
