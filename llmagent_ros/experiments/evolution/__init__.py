"""Evolution in parallel simulation: `llmagent evolve`."""
