"""From scene text to an action phrase: the language model, its scores and its choice."""
