"""Where a source can be changed, and what it then reads: one small change each, as text."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import unified_diff

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
# Arguments whose value tests cannot see, or only as a failure elsewhere.
FORM = {"strict", "encoding", "stacklevel", "indent", "parents", "exist_ok", "help", "metadata"}


# Functions to whom the order of their first two arguments is nothing.
SYMMETRIC = {"max", "maximum", "min", "minimum", "hypot", "transpose"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change: bytes `start` to `end` of the file become `text`, so its lines `before` read `after`.

    `function` is the line of the innermost function around it, 0 at module level.
    """

    file: str
    line: int
    function: int
    kind: str
    start: int
    end: int
    text: str
    before: str
    after: str
    id: str

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.text.encode() + source[self.end :]


def mutants_of(file: str, source: bytes) -> list[Mutant]:
    """Every mutant of a file. Its id depends on the changed line only, so a seed chooses the same ones while other lines change."""
    lines = [0]
    for text in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(text))
    found: list[Mutant] = []
    seen: dict[str, int] = {}
    for node, kind, new, function in _changes(ast.parse(source)):
        start, end = lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset
        text = f"({ast.unparse(new)})" if isinstance(new, ast.expr) and not isinstance(new, (ast.Constant, ast.Call)) else ast.unparse(new)
        changed = source[:start] + text.encode() + source[end:]
        before, after = _changed_lines(source.decode(), changed.decode())
        key = "\0".join((file, kind, before, after))
        seen[key] = seen.get(key, 0) + 1
        place = {"file": file, "line": node.lineno, "function": function, "kind": kind, "start": start, "end": end}
        name = hashlib.sha256(f"{key}\0{seen[key]}".encode()).hexdigest()[:16]
        found.append(Mutant(**place, text=text, before=before, after=after, id=name))
    return found


def _changed_lines(before: str, after: str) -> tuple[str, str]:
    lines = [line for line in unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="") if line[:3] not in ("---", "+++")]
    return tuple("\n".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")


def _changes(tree: ast.Module) -> Iterator[tuple[ast.AST, str, ast.AST, int]]:
    """(node, kind of change, what stands in its place, line of the function)."""
    pending: list[tuple[ast.AST, int]] = [(tree, 0)]
    while pending:
        node, function = pending.pop()
        if isinstance(node, (ast.JoinedStr, ast.Assert)) or _is_for_types(node):
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if any("jit" in ast.unparse(decorator) or "register_fake" in ast.unparse(decorator) for decorator in node.decorator_list):
                continue  # Triton reads the source of what it compiles; mutants of it belong on a GPU
            function = node.lineno
        for kind, new in _replacements(node):
            yield node, kind, new, function
        pending.extend((child, function) for child in reversed(list(_children(node))))


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What a change may touch: no decorators, annotations, type aliases, words of an error, or the arguments in FORM."""
    if isinstance(node, ast.Raise):
        return
    hidden = {"decorator_list", "annotation", "returns"} | ({"slice"} if _is_annotation(node) else set())
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if name not in hidden and isinstance(child, ast.AST) and not (isinstance(child, ast.keyword) and child.arg in FORM):
                yield child


def _is_annotation(node: ast.AST) -> bool:
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in ("Callable", "Literal")


def _replacements(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Compare(left=left, ops=[operator, *rest], comparators=others) if type(operator) in COMPARISONS:
            yield "comparison", ast.Compare(left, [COMPARISONS[type(operator)](), *rest], others)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in ARITHMETIC and not _has_text(node):
            yield "arithmetic", ast.BinOp(left, ARITHMETIC[type(operator)](), right)
        case ast.BoolOp(op=operator, values=values):
            yield "boolean", ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield "sign", operand
        case ast.Constant(value=bool(value)):
            yield "constant", ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield "constant", ast.Constant(value + 1)
        case ast.Constant(value=float(value)):
            yield "constant", ast.Constant(1.5 * value or 1.0)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield "condition", ast.IfExp(test, orelse, body)
        case ast.Call(func=function, args=[first, second, *rest], keywords=keywords) if not isinstance(first, ast.Starred):
            symmetric = ast.unparse(function).rpartition(".")[2] in SYMMETRIC
            if not symmetric and not isinstance(second, ast.Starred) and ast.unparse(first) != ast.unparse(second):
                yield "arguments", ast.Call(function, [second, first, *rest], keywords)
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "return", ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break():
            yield "dropped", ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "dropped", ast.Pass()


def _has_text(node: ast.AST) -> bool:
    """Whether a text or None stands in it, as in a union of types: any other operator is an error at once."""
    return any(
        isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and isinstance(part.value, (str, type(None))))
        for part in ast.walk(node)
    )
