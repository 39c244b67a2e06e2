"""What is tried to break Hubbub: hostile clients, faults, a soak, fuzzing, conformance.

What must not live here: code that users run, and tests of single modules (`tests/`). The programs run
from the root of the repository, `python -m stress.run` for example; the Makefile has all of them.
"""
