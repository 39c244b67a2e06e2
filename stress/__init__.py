"""What is tried to break Hubbub: hostile clients, faults, a soak, fuzzing, conformance.

What must not live here: code that users run, and tests of single modules (`tests/`). The programs run
from the root of the repository, `python -m stress.run` for example; the Makefile has all of them.
Servers that are hurt, and ways that are cut, are those of the tests.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
