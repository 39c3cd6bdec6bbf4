"""Reads PTX: the parameters of a kernel, its threads, instructions and labels."""

import re
from dataclasses import dataclass

_ENTRY = re.compile(r'\.entry\s+(\w+)\s*\((.*?)\)(.*?)\{\n(.*?)\n\}', re.S)
_PARAMETER = re.compile(r'\.param\s+\.(\w+)[^,]*?(\w+)\s*(?:,|$)')
_STATEMENT = re.compile(r'(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)', re.S)
_OPERAND = re.compile(r'\{[^}]*\}|\[[^\]]*\]|[^,\s]+')
# They say nothing about what is computed.
_SILENT = ('.loc', '.reg', '.pragma')
_BOUNDS = ('reqntid', 'maxntid', 'minnctapersm', 'maxnreg')


class Unsupported(Exception):
    """PTX, or a use of it, that the emulator does not know."""


@dataclass(frozen=True)
class Address:
    """`[base + offset]`: a register, or the name of a parameter, and bytes."""

    base: str
    offset: int


Operand = str | Address | tuple[str, ...]


@dataclass(frozen=True)
class Instruction:
    """`@!guard name.modifiers operands;`, and the text that messages quote."""

    text: str
    name: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: str | None = None
    negated: bool = False

    @property
    def opcode(self) -> str:
        """Name and modifiers, as PTX writes them."""
        return '.'.join((self.name, *self.modifiers))


@dataclass(frozen=True)
class Program:
    """One kernel: `parameters` are (name, type), `labels` indices of instructions."""

    name: str
    threads: int
    parameters: tuple[tuple[str, str], ...]
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]


def parse(ptx: str) -> Program:
    """The one kernel of a PTX module; Unsupported names a line that is not known."""
    text = re.sub(r'//[^\n]*', '', ptx)
    entries = _ENTRY.findall(text)
    if len(entries) != 1 or re.search(r'\.func\b', text):
        raise Unsupported('a module has one kernel and no functions')
    name, parameters, bounds, body = entries[0]
    unknown = set(re.findall(r'\.(\w+)', bounds)) - set(_BOUNDS)
    threads = re.search(r'\.reqntid\s+(\d+)(?:\s*,\s*1)*\s', bounds + ' ')
    if unknown or threads is None:
        raise Unsupported(f'{name}: {" ".join(bounds.split())}')
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in map(str.strip, body.splitlines()):
        if label := re.fullmatch(r'(\$\w+):', line):
            labels[label[1]] = len(instructions)
        elif line and not line.startswith(_SILENT):
            if not line.endswith(';'):
                raise Unsupported(f'{name}: {line}')
            instructions += map(_instruction, line[:-1].split(';'))
    return Program(
        name=name,
        threads=int(threads[1]),
        parameters=tuple((n, t) for t, n in _PARAMETER.findall(parameters)),
        instructions=tuple(instructions),
        labels=labels,
    )


def _instruction(statement: str) -> Instruction:
    text = statement.strip()
    match = _STATEMENT.fullmatch(text)
    if match is None:
        raise Unsupported(text)
    negated, guard, opcode, rest = match.groups()
    name, *modifiers = opcode.replace('shared::cta', 'shared').split('.')
    operands = tuple(map(_operand, _OPERAND.findall(rest)))
    return Instruction(text, name, tuple(modifiers), operands, guard, negated == '!')


def _operand(text: str) -> Operand:
    if text[0] == '{':
        return tuple(part.strip() for part in text[1:-1].split(','))
    if text[0] == '[':
        base, _, offset = text[1:-1].replace(' ', '').partition('+')
        return Address(base, int(offset or '0', 0))
    return text
