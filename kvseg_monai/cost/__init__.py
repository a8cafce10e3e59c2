"""What a network costs: parameters, MACs, memory, latency, and a training step's time."""
