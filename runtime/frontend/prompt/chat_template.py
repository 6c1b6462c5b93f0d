"""A chat template, compiled once. It renders within limits of time and memory, and every failure is one
sentence.
"""

from __future__ import annotations

import threading
from typing import Any

import jinja2

from ...bundle.errors import AntiphonError, InvalidInput
from ...bundle.said import reason
from .template_counting import count_nodes, meter_tree
from .template_meter import OverBudget
from .template_sandbox import Sandbox

LARGEST_TEMPLATE = 128 * 2**10
"""Characters. The published templates have up to 25,000."""
MOST_NODES = 15_000
"""Expressions and statements of a template. Compiling this many takes about half a second and 60 MB. The
published templates have up to 3,000.
"""
USE_ANOTHER = "use the chat template of the checkpoint"


class ChatTemplate:
    """A template of the kind that transformers renders. Several threads may use it; they render one at a
    time.
    """

    def __init__(self, source: str, where: str = "The chat template") -> None:
        """`where`: the name of the template in errors. Raises AntiphonError if it is too large or does not
        compile.
        """
        self._where, self._lock, self._sandbox = where, threading.Lock(), Sandbox()
        if len(source) > LARGEST_TEMPLATE:
            raise AntiphonError(
                f"{where} has {len(source):,} characters, expected at most {LARGEST_TEMPLATE:,}; "
                f"{USE_ANOTHER}."
            )
        problem = ""
        try:
            self._sandbox.meter.begin(None)
            tree = self._sandbox.parse(source)
            if count_nodes(tree) > MOST_NODES:
                raise OverBudget(f"it has more than {MOST_NODES:,} expressions and statements")
            code = self._sandbox.compile(meter_tree(tree))
            self._template = jinja2.Template.from_code(self._sandbox, code, self._sandbox.make_globals(None))
        except OverBudget as error:
            problem = f"{where} cannot be compiled: {reason(error).rstrip('.')}; {USE_ANOTHER}."
        except RecursionError:
            problem = f"{where} cannot be compiled: it is nested too deeply; {USE_ANOTHER}."
        except Exception as error:  # errors of Jinja, and of Python's compiler for the code that Jinja made
            problem = f"{where} is not valid Jinja ({reason(error).rstrip('.')}); {USE_ANOTHER}."
        if problem:
            raise AntiphonError(problem)

    def render(self, variables: dict[str, Any], guard: str = "") -> str:
        """The text for `variables`, which are plain data.

        `guard`: a character that even `tojson(ensure_ascii=true)` does not escape. Time and memory are
        limited to what a template may need for `variables` (see `template_meter`). Raises AntiphonError if
        the template refuses the variables, fails, or needs more.
        """
        problem = ""
        with self._lock:
            try:
                self._sandbox.guard = guard
                self._sandbox.meter.begin(variables)
                # Template.render would rewrite the traceback of every error.
                return "".join(self._template.root_render_func(self._template.new_context(variables)))
            except OverBudget as error:
                problem = f"{self._where} cannot be rendered: {reason(error).rstrip('.')}; {USE_ANOTHER}."
            except RecursionError:
                problem = f"{self._where} cannot be rendered: it calls itself too deeply; {USE_ANOTHER}."
            except Exception as error:
                if type(error) is jinja2.TemplateError:  # of raise_exception
                    problem = (
                        f"{self._where} refuses these messages: {reason(error).rstrip('.')}; "
                        "change the order or the roles of the messages."
                    )
                else:
                    problem = (
                        f"{self._where} fails on these messages ({type(error).__name__}: "
                        f"{reason(error).rstrip('.')}); {USE_ANOTHER}."
                    )
        # raised here, so that the error does not hold the template's values in memory
        raise InvalidInput(problem)
