"""Read machine code (SASS) as `cuobjdump -sass` prints it: which instructions a warp executes per step of a product, and per tile.

A kernel of ours has a main loop around its tensor cores, nested in a loop over tiles or flattened into one with it. Blocks of instructions
are found by their branches, loops by dominators. What is not on the shortest way round the main loop is executed once per tile, or
seldom: a region that the shortest way through a tile leaves out.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_LINE = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", re.MULTILINE)
_TARGET = re.compile(r"\b(?:BRA|CALL)\b.*?\b0x([0-9a-f]+)")  # ptxas also jumps by calls that never return
_CONDITION = re.compile(r"^@|\bBRA\S* !?U?P\d|BRA\.DIV|\bCALL\b")
_TENSOR_CORES = re.compile(r"\b(?:HGMMA|HMMA|UTC\w*MMA)\b")
_EXPONENTIAL = re.compile(r"\bMUFU\.EX2\b")
_WAITS = re.compile(r"\bWARPGROUP\.DEPBAR\.LE gsb0, 0x(\d+)")
_SPINS = re.compile(r"\bTRYWAIT\b")


@dataclass(frozen=True, slots=True)
class Block:
    """Instructions without a branch in or out between them, and the places of the blocks that may follow."""

    code: tuple[str, ...]
    after: tuple[int, ...]

    def count(self, pattern: re.Pattern[str]) -> int:
        return sum(bool(pattern.search(instruction)) for instruction in self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loops:
    """What one warp executes: instructions `per_step` of the main loop, further ones `per_tile`, and `seldom` executed ones of a tile.

    `exponentials` are those of a tile. `in_flight` is the number of groups of asynchronous products that the main loop does not wait for:
    0 means one after the other. Kernels without tensor cores have no step: their loop, or the whole of them, is the tile.
    """

    per_step: int = 0
    per_tile: int = 0
    seldom: int = 0
    exponentials: int = 0
    in_flight: int = 0


def blocks_of(machine: str) -> list[Block]:
    """The blocks of the first function of a listing; the first is the entry."""
    lines = [(int(address, 16), code) for address, code in _LINE.findall(machine.split("\n\t\tFunction : ", 2)[1])]
    place = {address: index for index, (address, _) in enumerate(lines)}
    jumps = {index: place[int(found[1], 16)] for index, (_, code) in enumerate(lines) if (found := _TARGET.search(code))}
    ends = {index for index, (_, code) in enumerate(lines) if index in jumps or re.search(r"\b(?:EXIT|RET\S*)\b", code)}
    starts = sorted({0, *jumps.values(), *(end + 1 for end in ends if end + 1 < len(lines))})
    number = {start: index for index, start in enumerate(starts)}
    blocks = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        last, code = end - 1, lines[end - 1][1]
        after = [number[jumps[last]]] if last in jumps else []
        if end in number and (last not in ends or _CONDITION.search(code)):
            after.append(number[end])
        blocks.append(Block(tuple(code for _, code in lines[start:end]), tuple(dict.fromkeys(after))))
    return blocks


def loops_of(blocks: list[Block]) -> list[set[int]]:
    """Natural loops, each as its blocks, the smallest first. The header is the one that dominates the others."""
    dominators, found = _dominators(blocks), {}
    before = {index: {i for i, block in enumerate(blocks) if index in block.after} for index in range(len(blocks))}
    for index, block in enumerate(blocks):
        for header in block.after:
            if header not in dominators[index]:
                continue
            body, rest = found.setdefault(header, {header}), [index]
            while rest:
                if (one := rest.pop()) not in body:
                    body.add(one)
                    rest += before[one]
    return sorted(found.values(), key=len)


def _dominators(blocks: list[Block]) -> list[set[int]]:
    """The blocks that every way to a block passes, itself among them; a block that no way reaches has none."""
    reached, rest = {0}, [0]
    while rest:
        new = set(blocks[rest.pop()].after) - reached
        reached |= new
        rest += new
    dominators = [set(reached) if index in reached else set() for index in range(len(blocks))]
    dominators[0], changed = {0}, True
    while changed:
        changed = False
        for index in reached - {0}:
            ways = [dominators[i] for i in reached if index in blocks[i].after]
            new = {index} | set.intersection(*ways)
            changed |= new != dominators[index]
            dominators[index] = new
    return dominators


def _shortest(blocks: list[Block], inside: set[int], starts: Iterable[int], stop: Callable[[int], bool]) -> list[int]:
    """The way of fewest instructions through blocks `inside`, from one of `starts` to one where `stop`; both ends are in it."""
    heap, seen = [(len(blocks[start].code), [start]) for start in starts if start in inside], set()
    heapq.heapify(heap)
    while heap:
        length, way = heapq.heappop(heap)
        if stop(way[-1]):
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            for after in set(blocks[way[-1]].after) & inside - seen:
                heapq.heappush(heap, (length + len(blocks[after].code), [*way, after]))
    raise ValueError("no way through these blocks: the listing has branches that are not read here")


def _through(blocks: list[Block], inside: set[int], starts: Iterable[int], middle: int, ends: set[int]) -> set[int]:
    """Blocks of the shortest way from one of `starts` by `middle` to a block that may be followed by one of `ends`."""
    way = _shortest(blocks, inside, starts, lambda block: block == middle)
    return {*way, *_shortest(blocks, inside, [middle], lambda block: bool(ends & set(blocks[block].after)))}


def _length(blocks: list[Block], chosen: Iterable[int]) -> int:
    return sum(len(blocks[index].code) for index in chosen)


def _most(blocks: list[Block], chosen: Iterable[int], pattern: re.Pattern[str]) -> int:
    return max(sorted(chosen), key=lambda index: blocks[index].count(pattern))


def _header(blocks: list[Block], body: set[int]) -> int:
    """The block of a loop by which it is entered."""
    outside = {after for index, block in enumerate(blocks) if index not in body for after in block.after}
    return min(body & outside or body)


def read_loops(machine: str) -> Loops:
    """What a listing says of its kernel's loops."""
    blocks = blocks_of(machine)
    loops = loops_of(blocks)
    products = [body for body in loops if any(blocks[index].count(_TENSOR_CORES) for index in body)]
    return _tiled(blocks, products) if products else _rowwise(blocks, loops)


def _tiled(blocks: list[Block], loops: list[set[int]]) -> Loops:
    main = loops[0]
    header = _header(blocks, main)
    steady = _through(blocks, main, [header], _most(blocks, main, _TENSOR_CORES), {header})
    waits = [int(depth) for index in steady for code in blocks[index].code for depth in _WAITS.findall(code)]
    tile = next((body for body in loops if any(blocks[index].count(_EXPONENTIAL) for index in body)), loops[-1])
    per_tile = seldom = exponentials = 0
    spins = {index for index in tile if blocks[index].count(_SPINS)}  # how often a wait goes round is not known
    for region in _regions(blocks, tile - steady - spins):
        starts = {after for index in steady for after in blocks[index].after} & region
        ends = {index for index in region if set(blocks[index].after) & steady}
        if not starts or not ends:
            continue
        way = _through(blocks, region, starts, _most(blocks, region, _EXPONENTIAL), steady)
        per_tile += _length(blocks, way)
        seldom += _length(blocks, region - way)
        exponentials += sum(blocks[index].count(_EXPONENTIAL) for index in way)
    length = _length(blocks, steady)
    return Loops(per_step=length, per_tile=per_tile, seldom=seldom, exponentials=exponentials, in_flight=min(waits, default=0))


def _regions(blocks: list[Block], chosen: set[int]) -> list[set[int]]:
    """The chosen blocks in groups that hang together."""
    rest, regions = set(chosen), []
    while rest:
        region, new = set(), {min(rest)}
        while new:
            region |= new
            new = {i for i in chosen - region if any(i in blocks[j].after or j in blocks[i].after for j in region)}
        regions.append(region)
        rest -= region
    return regions


def _rowwise(blocks: list[Block], loops: list[set[int]]) -> Loops:
    """Without tensor cores: the loop that has exponentials, or all from the entry to an end."""
    body = next((body for body in loops if any(blocks[index].count(_EXPONENTIAL) for index in body)), None)
    if body is None:
        everything = {index for index, ways in enumerate(_dominators(blocks)) if ways}
        middle = _most(blocks, everything, _EXPONENTIAL)
        way = set(_shortest(blocks, everything, [0], lambda index: index == middle))
        way |= set(_shortest(blocks, everything, [middle], lambda index: not blocks[index].after))
    else:
        header = _header(blocks, body)
        way = _through(blocks, body, [header], _most(blocks, body, _EXPONENTIAL), {header})
    exponentials = sum(blocks[index].count(_EXPONENTIAL) for index in way)
    return Loops(per_step=0, per_tile=_length(blocks, way), seldom=0, exponentials=exponentials, in_flight=0)
