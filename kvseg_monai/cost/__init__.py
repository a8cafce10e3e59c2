"""Costs of a network: parameters, MACs, memory, latency, and a training step's time."""
