"""The command line: ``python -m dirtyheap`` and the ``dirtyheap`` script. docs/cli.md shows it all.

Thin over the library: a command parses its arguments, makes a few calls, and shows what came back
as text or as one JSON document. Nothing here knows pages or rows, and nothing that a heap names is
imported, executed or sent to a terminal unescaped.

    program.py      from arguments to an exit code, errors as one line
    exit_codes.py   what scripts may rely on
    arguments.py    what the parsers of several commands share
    output.py       text and JSON to stdout, progress to stderr
    looking.py      info, log, diff
    counting.py     census, growth
    tagging.py      tag
    keeping.py      verify, fold, upgrade, backup
    dumping.py      dump: what to show
    nodes.py        dump: values as nodes, bounded
    node_text.py    dump: nodes as text
    path.py         dump: root['users'][3]
"""

from .program import main

__all__ = ["main"]
