"""All small faults that can be put into a module: another comparison, constant or condition, or a call left out.

They are edits of the text, so that all else of the file stays, line numbers too. Annotations, docstrings, messages of
exceptions, decorators, protocols and declarations of type variables stay as they are: no behaviour depends on them.
(Libraries for this, such as cosmic-ray and mutmut, keep a database or a copy of all mutants, and cannot run one copy of
themselves against another commit.)
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


_DECLARE_TYPES = frozenset({"TypeVar", "TypeVarTuple", "ParamSpec", "NewType"})


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edit: bytes of a file that are replaced."""

    path: str
    line: int
    start: int
    end: int
    text: str
    before: str

    def __str__(self) -> str:
        """Return the place and the edit, in one line."""
        return f"{self.path}:{self.line}  {_short(self.before)}  →  {_short(self.text)}"

    def applied(self, source: bytes) -> bytes:
        """Return the file with the edit."""
        return source[: self.start] + self.text.encode() + source[self.end :]


def mutants(path: str, source: bytes) -> Iterator[Mutant]:
    """Yield all mutants of a file, in the order of its text."""
    offsets = [0]
    for line in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    for node, text in _edits(ast.parse(source)):
        start = offsets[node.lineno - 1] + node.col_offset
        end = offsets[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        before = source[start:end].decode()
        yield Mutant(path, node.lineno, start, end, text, before)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."


def _edits(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    if isinstance(node, ast.expr):
        for changed in _expressions(node):
            yield node, f"({ast.unparse(ast.fix_missing_locations(changed))})"
    elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield node, "pass"
    for child in _children(node):
        yield from _edits(child)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a node that behaviour depends on and whose places in the text are known."""
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.ClassDef) and any(_last_name(base) == "Protocol" for base in node.bases):
        return
    if isinstance(node, ast.Call) and _last_name(node.func) in _DECLARE_TYPES:
        return
    if isinstance(node, ast.Call) and _last_name(node.func) == "cast":
        yield from node.args[1:]
        return
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns", "decorator_list", "bases", "keywords"} and not isinstance(node, ast.Call):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_text_alone(child):
                yield child


def _last_name(node: ast.expr) -> str:
    """Return the name of a function or base class, without its module and type arguments."""
    return ast.unparse(node).partition("[")[0].rpartition(".")[2]


def _is_text_alone(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _expressions(node: ast.expr) -> Iterator[ast.expr]:
    """Yield what an expression becomes; its own parts are unchanged in it."""
    match node:
        case ast.Compare(ops=ops):
            for index, operator in enumerate(ops):
                changed = copy.deepcopy(node)
                changed.ops[index] = COMPARISONS[type(operator)]()
                yield changed
        case ast.BoolOp(op=boolean):
            changed_boolean = copy.deepcopy(node)
            changed_boolean.op = ast.Or() if isinstance(boolean, ast.And) else ast.And()
            yield changed_boolean
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.BinOp(op=operation) if type(operation) in OPERATORS:
            yield ast.BinOp(node.left, OPERATORS[type(operation)](), node.right)
        case ast.IfExp():
            yield ast.IfExp(node.test, node.orelse, node.body)
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str() as value):
            yield ast.Constant(f"{value}x")
