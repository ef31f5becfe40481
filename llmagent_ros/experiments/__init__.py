"""Learning without ROS: environments as text, the training loop, evaluation, benchmarks. Composes the capabilities."""
