"""Does the profiler find what was put in on purpose?"""
