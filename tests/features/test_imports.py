"""A hot path loads the compiled plan, never what compiled it."""

import subprocess
import sys


def test_the_hot_path_imports_nothing_heavy() -> None:
    modules = "plan, tiles, merge, sketch, keys, reader, writer, on_demand, changes, store, compiler"
    code = f"from features import {modules}; import sys; print(*{{n.partition('.')[0] for n in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not set(loaded.split()) & {"feast", "torch", "pandas", "mlflow", "pyarrow", "faust", "pyflink"}
