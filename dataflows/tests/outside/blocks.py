"""Runs SQL and Python blocks of the docs in the working directory, in which a run has left `data/lake`.

Standard input: a JSON list of [document, number, language, text]. Standard output: a JSON list of [document, number, printed].
"""

import contextlib
import io
import json
import sys

import duckdb

answers = []
for document, number, language, text in json.load(sys.stdin):
    printed = io.StringIO()
    try:
        if language == "python":
            with contextlib.redirect_stdout(printed):
                exec(compile(text, f"{document}, block {number}", "exec"), {})
        else:
            printed.write(str(duckdb.sql(text)))
    except Exception as error:
        sys.exit(f"{document}, block {number}: {error}\n{text}")
    # Tables are printed with spaces at the ends of their lines.
    lines = [line.rstrip() for line in printed.getvalue().splitlines()]
    answers.append([document, number, "\n".join(lines)])
json.dump(answers, sys.stdout)
