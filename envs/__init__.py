"""Tasks as Gymnasium vector environments, normalisation, the rollout. Knows arrays only, no torch."""
