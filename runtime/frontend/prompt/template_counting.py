"""Insert metering into a template's tree: each body that may repeat counts its steps, and each value that is
written, compared or copied is weighed.

The tree is changed between Jinja's parser and its compiler. Calls of `nodes.EnvironmentAttribute` come only
from this module. MeteredCode writes them as direct calls, since the sandbox would count them as calls of the
template.
"""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.visitor import NodeTransformer

LARGE_BRANCH = 12
"""A branch of an if with at least this many nodes counts itself. A smaller one is counted with the code
around it.
"""


class MeteredCode(CodeGenerator):
    """Jinja's code generator, which writes the calls that `meter_tree` inserted as direct calls."""

    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:
        if not isinstance(node.node, nodes.EnvironmentAttribute):
            super().visit_Call(node, frame, forward_caller=forward_caller)
            return
        self.write(f"environment.{node.node.name}(")
        for argument in node.args:
            self.visit(argument, frame)
            self.write(", ")
        self.write(")")


def meter_tree(tree: nodes.Template) -> nodes.Template:
    """Change `tree` so that its compiled code calls `spend`, `weighed`, `written` and `is_in` of its
    environment; return it.
    """
    _Metering().visit(tree)
    tree.body = _counted(tree.body)
    return tree


def count_nodes(tree: nodes.Template) -> int:
    """The number of nodes of `tree`."""
    count, waiting = 0, list[nodes.Node]([tree])
    while waiting:
        count += 1
        waiting.extend(waiting.pop().iter_child_nodes())
    return count


class _Metering(NodeTransformer):
    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        if node.test is not None:
            node.test = nodes.And(_spend(*_cost([node.test])), node.test)
        return self._body(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._body(self.generic_visit(node))

    visit_CallBlock = visit_Block = visit_Macro

    def visit_If(self, node: nodes.If) -> nodes.Node:
        self.generic_visit(node)
        for name in ("body", "else_"):
            branch = getattr(node, name)
            if _cost(branch)[0] >= LARGE_BRANCH:
                setattr(node, name, _counted(branch))
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_call("written", child) for child in node.nodes]
        return node

    visit_Concat = visit_Output

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        operands = [node.expr, *(operand.expr for operand in node.ops)]
        if len(operands) == 2 and node.ops[0].op in ("in", "notin"):
            if isinstance(operands[1], nodes.List | nodes.Tuple) and all(
                isinstance(item, nodes.Const) for item in operands[1].items
            ):
                return node
            found = _call("is_in", *operands)
            return found if node.ops[0].op == "in" else nodes.Not(found)
        if len(operands) == 2 and any(isinstance(operand, nodes.Const) for operand in operands):
            return node  # takes time for the length of the constant only
        node.expr = _call("weighed", node.expr)
        for operand in node.ops:
            operand.expr = _call("searched" if operand.op in ("in", "notin") else "weighed", operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _call("copied", node.node)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        node.key = _call("weighed", node.key)  # a nested list has no hash, but a nested tuple has
        return node

    def _body(self, node: Any) -> nodes.Node:
        node.body = _counted(node.body)
        return node


def _call(name: str, *args: Any) -> Any:
    if len(args) == 1 and isinstance(args[0], nodes.Const | nodes.TemplateData):
        return args[0]
    return nodes.Call(nodes.EnvironmentAttribute(name), list(args), [], None, None, lineno=args[0].lineno)


def _spend(steps: int, characters: int) -> nodes.Call:
    return nodes.Call(
        nodes.EnvironmentAttribute("spend"), [nodes.Const(steps), nodes.Const(characters)], [], None, None
    )


def _counted(body: list[nodes.Node]) -> list[nodes.Node]:
    return [nodes.ExprStmt(_spend(*_cost(body))), *body]


def _cost(body: list[nodes.Node]) -> tuple[int, int]:
    """Steps and characters of one run of `body`: one step per node, and the text and lists that it writes.
    Bodies that count themselves are left out.
    """
    steps, characters = 1, 0
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        steps += 1
        if isinstance(node, nodes.TemplateData):
            characters += len(node.data)
        elif isinstance(node, nodes.Const):
            characters += len(node.value) if isinstance(node.value, str) else 8
        elif isinstance(node, nodes.List | nodes.Tuple | nodes.Dict):
            characters += 64 + 8 * len(node.items)
        elif isinstance(node, nodes.For):
            steps += 10
        for _, value in node.iter_fields():
            if isinstance(value, nodes.Node):
                waiting.append(value)
            elif isinstance(value, list) and not (value and _is_spend(value[0])):
                waiting.extend(item for item in value if isinstance(item, nodes.Node))
    return steps, characters


def _is_spend(statement: Any) -> bool:
    call = statement.node if isinstance(statement, nodes.ExprStmt) else None
    return isinstance(call, nodes.Call) and isinstance(call.node, nodes.EnvironmentAttribute)
