"""llmagent_ros: a language model as the learning policy of a robot."""

__version__ = "0.1.0"
