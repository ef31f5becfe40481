"""Off-policy reinforcement learning from replay and demonstrations."""
