"""The tables of a suite: final scores, sample efficiency, geometry, and every planned cell."""
