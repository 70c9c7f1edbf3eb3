"""ClickHouse in a process of its own, run by .venv-interop: a line of JSON with a statement comes in, a line with its rows goes out.

It imports nothing of the project, which is not installed there.
"""

import json
import os
import sys

from chdb.session import Session


def main() -> None:
    """Answers until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed is no answer
    session = Session()
    for line in sys.stdin:
        try:
            found = str(session.query(json.loads(line), "JSONCompactEachRowWithNames")).splitlines()
        except RuntimeError as error:
            answer: dict[str, object] = {"error": str(error)}
        else:
            columns, *rows = map(json.loads, found or ["[]"])
            answer = {"columns": columns, "rows": rows}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
