"""Rewards to gradients: advantages, group kinds, policy losses by name, importance correction, metrics. Pure functions."""
