"""How fast the suite trains beside its peers, what its diagnostics cost, and the search for settings."""
