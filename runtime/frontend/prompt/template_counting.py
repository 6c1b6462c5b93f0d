"""Where a template's tree spends: every body that may run again counts its steps, and every value that is written, compared or copied is weighed.

The tree is changed between Jinja's parser and its compiler. Calls of `nodes.EnvironmentAttribute` are this module's own: MeteredCode writes them
without the sandbox's detour, which would count them as calls of the template.
"""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.visitor import NodeTransformer

LARGE_BRANCH = 12
"""Nodes from which on a branch of an if counts itself; smaller ones are counted with what is around them."""


class MeteredCode(CodeGenerator):
    """Jinja's code generator, with the calls that `meter_tree` put in written as plain calls."""

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
    """`tree`, changed so that its compiled form calls `spend`, `weighed`, `written`, `is_in` of its environment."""
    _Metering().visit(tree)
    tree.body = _counted(tree.body)
    return tree


def count_nodes(tree: nodes.Template) -> int:
    """How many nodes `tree` has."""
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
            if isinstance(operands[1], nodes.List | nodes.Tuple) and all(isinstance(item, nodes.Const) for item in operands[1].items):
                return node
            found = _call("is_in", *operands)
            return found if node.ops[0].op == "in" else nodes.Not(found)
        if len(operands) == 2 and any(isinstance(operand, nodes.Const) for operand in operands):
            return node  # takes no longer than the constant is
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
        node.key = _call("weighed", node.key)  # a list within a list within a list has no hash, but a tuple has
        return node

    def _body(self, node: Any) -> nodes.Node:
        node.body = _counted(node.body)
        return node


def _call(name: str, *args: Any) -> Any:
    if len(args) == 1 and isinstance(args[0], nodes.Const | nodes.TemplateData):
        return args[0]
    return nodes.Call(nodes.EnvironmentAttribute(name), list(args), [], None, None, lineno=args[0].lineno)


def _spend(steps: int, characters: int) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute("spend"), [nodes.Const(steps), nodes.Const(characters)], [], None, None)


def _counted(body: list[nodes.Node]) -> list[nodes.Node]:
    return [nodes.ExprStmt(_spend(*_cost(body))), *body]


def _cost(body: list[nodes.Node]) -> tuple[int, int]:
    """Steps and characters of one run of `body`: a step a node, and the text and the lists that it writes down; bodies that count themselves left out."""
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
