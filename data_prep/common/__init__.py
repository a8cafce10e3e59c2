"""Parts that every source shares: scans converted once, in several processes, split by patient."""
