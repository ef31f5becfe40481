"""Settings of all tests."""

from hypothesis import settings

# a machine that is busy with other tests is no failure of the code under test
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
