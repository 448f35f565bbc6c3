"""What shapes the numbers of a run: its parts put together (`learner.py`) and all its updates (`loop.py`).

Code here is part of a run's identity. What watches, stops or reports a run is in `command/` and `train.py`.
"""
