"""A population of adapters whose structure and hyperparameters are varied, evaluated and selected."""
