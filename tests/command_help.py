"""What commands answer to `--help`: all are asked in one process of their own, which imports once what they share."""

import io
import json
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import entry_points


def help_of(commands):
    """Exit status and answer of each command, which is the words before its options: `mlflow server`, `python -m x`."""
    asked = json.dumps([list(command) for command in commands])
    told = subprocess.run([sys.executable, __file__], input=asked, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stderr
    return {command: tuple(one) for command, one in zip(commands, json.loads(told.stdout), strict=True)}


def answer(words):
    """Ask one command in this process."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            if words[:2] == ["python", "-m"]:
                sys.argv = ["", "--help"]
                runpy.run_module(words[2], run_name="__main__", alter_sys=True)
            else:
                sys.argv = [*words, "--help"]
                next(iter(entry_points(group="console_scripts", name=words[0]))).load()()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        except Exception as error:
            status = f"{type(error).__name__}: {error}"
    return status, said.getvalue()


if __name__ == "__main__":
    sys.path[0] = ""  # modules are those of the directory, as with `python -m`
    json.dump([answer(words) for words in json.load(sys.stdin)], sys.stdout)
