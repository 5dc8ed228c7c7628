"""For all tests: a machine with two cores under load is no reason for hypothesis to call a test slow."""

from hypothesis import settings

settings.register_profile("gpurunbook", deadline=None)
settings.load_profile("gpurunbook")
