"""How a run is watched, stopped and reported: signals, progress, messages. No edit here can move a number."""
